"""Requests to the engine: what all have in common, and the best of a closed set.

Free replies are in free_reply.py. Token ids only. Who asks is told through two callbacks:
`on_token(index, token, score)`, which answers whether the reply goes on, and `on_end(index,
reason)`.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Generator as RandomGenerator
from torch import Tensor

from emojitune.inference.decoding.constraint import Constraint
from emojitune.inference.decoding.knn import NeighbourWeights
from emojitune.inference.decoding.label_search import (
    BestKnown,
    Enough,
    Scored,
    all_known,
    log_sum,
    nearly_all_known,
    rank,
)
from emojitune.inference.decoding.rejection_sampling import Tokens, draw
from emojitune.inference.decoding.sampling import Shape, TokenScore, choose_of, score, seeded, shift
from emojitune.inference.engine.kv_cache import Grown, Growth, Prompt
from emojitune.inference.engine.scheduler import Request

# Alternatives are told with their share of the whole set's probability: that good is good enough.
_SHARE_TOLERANCE = 0.01
_DRAWN_FROM = 0.5

Weigh = Callable[[Tensor], NeighbourWeights]
"""From the hidden state of a prompt's last token to what replies weigh besides."""

OnToken = Callable[[int, int, TokenScore | None], bool]
OnEnd = Callable[[int, Literal["stop", "length"]], None]


class Guide(Protocol):
    """Says along one reply what may come next. The masks of a grammar are such guides."""

    def allowed(self, size: int) -> Tensor:
        """True for each of `size` tokens that may come next; stop tokens are among them."""
        ...

    def advance(self, token: int) -> bool:
        """Take a token that was allowed; False when nothing may follow it but the end."""
        ...

    def forced(self) -> Sequence[int]:
        """The text that follows whatever is chosen, as its usual tokens; nothing at a choice.

        Other tokens may spell the same.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens, or whole replies, are drawn: for `n` replies of at most `max_tokens`.

    Attributes:
        shapes: Change what the model says before each draw.
        top: How many likeliest tokens to tell with each token; None tells no scores.
        guide: Makes the guide of one reply; None leaves all tokens allowed.
    """

    n: int
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    shapes: tuple[Shape, ...] = ()
    top: int | None = None
    guide: Callable[[], Guide] | None = None


def reply_from_set(
    ids: Sequence[int],
    prompt: Prompt,
    constraint: Constraint,
    sampling: Sampling,
    stop_ids: frozenset[int],
    on_token: OnToken,
    on_end: OnEnd,
    on_ranking: Callable[[list[Scored], float | None], None],
    *,
    alternatives: int = 0,
    probabilities: bool = True,
    weigh: Weigh | None = None,
) -> Request:
    """Whole replies of the set: the most probable, or at a temperature draws among all.

    Choosing token by token among what the set allows would renormalize at each branch, and prefer
    replies whose beginnings have few continuations. Shapes weigh whole replies, too: by the sum of
    what they change along each. `weigh` is `rank`'s.
    """
    generators = [seeded(sampling.seed, index) for index in range(sampling.n)]
    drawn: list[Tokens | None] = [None] * sampling.n
    if not alternatives and _is_plain(sampling):
        drawn = yield from _drawn(ids, prompt, constraint, stop_ids, sampling, generators, weigh)
    ranking: list[Scored] = []
    if None in drawn:
        rules = _rules(sampling, alternatives, probabilities)
        ranking = yield from rank(ids, prompt, constraint, stop_ids, rules, weigh=weigh)
        on_ranking(ranking[:alternatives], log_sum(ranking) if probabilities else None)
    chosen = [
        _choose(ranking, sampling, generator) if tokens is None else tokens
        for tokens, generator in zip(drawn, generators, strict=True)
    ]
    told: dict[tuple[int, ...], list[TokenScore]] = {}
    if sampling.top is not None:
        told = yield from _scores(ids, prompt, chosen, sampling.top)
    for index, tokens in enumerate(chosen):
        _deliver(index, tokens, told.get(tokens), sampling.max_tokens, on_token, on_end)


def _is_plain(sampling: Sampling) -> bool:
    """Whether replies are drawn, from all of the set and by their weights alone."""
    return sampling.temperature > 0.0 and not sampling.shapes and sampling.top_p == 1.0


def _drawn(
    ids: Sequence[int],
    prompt: Prompt,
    constraint: Constraint,
    stop_ids: frozenset[int],
    sampling: Sampling,
    generators: Sequence[RandomGenerator],
    weigh: Weigh | None,
) -> Generator[list[Growth], list[Grown], list[Tokens | None]]:
    """Draws that need no ranking; None for those that do."""
    temperature = sampling.temperature
    if weigh is None and _DRAWN_FROM <= temperature <= 1.0:
        # As the model would say them, or not much more sharply: else few draws would be kept, and
        # the search ends soon.
        return (yield from draw(ids, prompt, constraint, stop_ids, temperature, generators))
    if weigh is None or sampling.n > 1:  # for several, one ranking is less than a search for each
        return [None] * sampling.n

    def noisy(state: Tensor) -> NeighbourWeights:
        return weigh(state).disturbed(temperature, generators[0])

    rules = [BestKnown(1)]
    [best, *_] = yield from rank(ids, prompt, constraint, stop_ids, rules, weigh=noisy)
    return [best.tokens]


def _choose(
    ranking: Sequence[Scored], sampling: Sampling, generator: RandomGenerator
) -> tuple[int, ...]:
    weights = [scored.weight + shift(scored.tokens, sampling.shapes) for scored in ranking]
    chosen = choose_of(
        weights,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        generator=generator,
    )
    return ranking[chosen].tokens


def _rules(sampling: Sampling, alternatives: int, probabilities: bool) -> list[Enough]:
    """How far down the search has to look."""
    if sampling.shapes:
        return [all_known]  # what is improbable may be weighed up
    rules: list[Enough] = [BestKnown(max(1, alternatives))]
    if sampling.temperature > 0.0:
        rules.append(nearly_all_known(sampling.temperature))
    if alternatives and probabilities:
        rules.append(nearly_all_known(1.0, tolerance=_SHARE_TOLERANCE))
    return rules


def _scores(
    ids: Sequence[int], prompt: Prompt, chosen: Sequence[tuple[int, ...]], top: int
) -> Generator[list[Growth], list[Grown], dict[tuple[int, ...], list[TokenScore]]]:
    """What the model says of each token of the chosen replies, among all tokens.

    A search asks for few numbers a row, so this is asked anew, for the chosen alone.
    """
    [start] = yield [Growth(prompt.path, ids[prompt.cached :])]
    everything = range(len(start.rows[-1]))
    different = [tokens for tokens in dict.fromkeys(chosen) if len(tokens) > 1]
    growths = [
        Growth(start.path, tokens[:-1], [everything] * (len(tokens) - 1), keep=False)
        for tokens in different
    ]
    later = (yield growths) if growths else []
    rows = {tokens: grown.rows for tokens, grown in zip(different, later, strict=True)}
    return {
        tokens: [
            score(row, token, top)
            for token, row in zip(tokens, [start.rows[-1], *rows.get(tokens, [])], strict=True)
        ]
        for tokens in chosen
    }


def _deliver(
    index: int,
    tokens: Sequence[int],
    scores: Sequence[TokenScore] | None,
    max_tokens: int,
    on_token: OnToken,
    on_end: OnEnd,
) -> None:
    for place, token in enumerate(tokens[:max_tokens]):
        if not on_token(index, token, scores[place] if scores else None):
            on_end(index, "stop")
            return
    on_end(index, "stop" if len(tokens) <= max_tokens else "length")
