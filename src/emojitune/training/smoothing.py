"""Label smoothing within a closed set of replies.

To plain cross-entropy, a token that spells another label is as wrong as one that spells none; so a
model that is unsure of the label is as ready to invent one. Here, where the replies of the set
part, a share of the target's probability goes to the tokens of all replies that go on from there,
each by how many they are. What is learned beside the label is the set itself. Szegedy et al.
(2016) smooth over all classes; docs/log.md has what it is worth.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from emojitune.models.renderer import RenderedExample


class LabelSmoothing:
    """The set of all replies that `examples` teach, each with its stop token."""

    def __init__(self, examples: Sequence[RenderedExample], share: float) -> None:
        """`share` of a target's probability is given away."""
        self._share = share
        self._following: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for reply in {reply for example in examples for reply in _replies(example)}:
            for place, token in enumerate(reply):
                self._following[reply[:place]][token] += 1

    def target_shifts(self, example: RenderedExample) -> Iterator[Mapping[int, float]]:
        """By learned token of an example, what to add to the probabilities that a loss asks for.

        Each sums to zero; empty where the set leaves no choice.
        """
        for reply in _replies(example):
            for place, token in enumerate(reply):
                yield self._shift(self._following[reply[:place]], token)

    def _shift(self, following: Counter[int], target: int) -> Mapping[int, float]:
        if len(following) == 1:
            return {}
        part = self._share / following.total()
        shift = {token: part * count for token, count in following.items()}
        shift[target] -= self._share
        return shift


def _replies(example: RenderedExample) -> Iterator[tuple[int, ...]]:
    """Runs of learned tokens; the first token of all has nothing to be told from."""
    pairs = zip(example.ids[1:], example.mask[1:], strict=True)
    for learned, run in groupby(pairs, key=lambda pair: pair[1]):
        if learned:
            yield tuple(token for token, _ in run)
