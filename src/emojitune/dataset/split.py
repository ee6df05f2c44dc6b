"""Cutting a file in two, and what must not be on both sides of the cut.

Two prompts are the same when they are equal after normalisation (case, punctuation, spacing), and
near when their words overlap by `NEAR` (Jaccard).
"""

import math
import random
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

from emojitune.dataset.example import TrainingExample
from emojitune.errors import InvalidRequestError

NEAR = 0.8

Group = tuple[int, ...]


def normalise(text: str) -> str:
    """`text` without case, punctuation and spacing: words separated by one blank."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("'", "").replace("’", "")
    letters = (c if c.isalnum() or unicodedata.category(c)[0] in "MS" else " " for c in folded)
    return " ".join("".join(letters).split())


def split_examples(
    examples: Sequence[TrainingExample], *, share: float, seed: int
) -> tuple[tuple[TrainingExample, ...], tuple[TrainingExample, ...]]:
    """(training, validation): about `share` of the examples go to the second, in file order.

    Examples with the same prompt stay on the same side. The same seed cuts the same way.
    """
    if not 0 < share < 1:
        raise InvalidRequestError(f"The validation share must lie between 0 and 1, not {share}.")
    groups = _groups(_prompt_key(example) for example in examples)
    random.Random(seed).shuffle(groups)
    held_out: set[int] = set()
    for group in groups:
        if len(held_out) >= round(share * len(examples)):
            break
        held_out.update(group)
    training = tuple(e for i, e in enumerate(examples) if i not in held_out)
    return training, tuple(examples[i] for i in sorted(held_out))


def duplicates(examples: Sequence[TrainingExample]) -> list[Group]:
    """Groups of places that hold the same prompt and the same reply."""
    keys = ((_prompt_key(example), example.reply) for example in examples)
    return [group for group in _groups(keys) if len(group) > 1]


def conflicts(examples: Sequence[TrainingExample]) -> list[Group]:
    """Groups of places that hold the same prompt with different replies, one place a reply."""
    found = []
    for group in _groups(_prompt_key(example) for example in examples):
        first_of = {examples[i].reply: i for i in reversed(group)}
        if len(first_of) > 1:
            found.append(tuple(sorted(first_of.values())))
    return found


def leakage(
    training: Sequence[TrainingExample], validation: Sequence[TrainingExample]
) -> list[tuple[int, int]]:
    """(place in training, place in validation) of questions that are equal or near.

    What is near within one file is not looked for: a large training file may be full of it.
    """
    one, other = ([_words(example.question) for example in side] for side in (training, validation))
    known = _Index([*one, *other], NEAR)
    for place, words in enumerate(one):
        known.add(place, words)
    return sorted((i, j) for j, words in enumerate(other) for i in known.near(words))


def near_pairs(texts: Sequence[str], *, threshold: float = NEAR) -> list[tuple[int, int]]:
    """All pairs of places whose word sets overlap by at least `threshold`."""
    sets = [_words(text) for text in texts]
    known, pairs = _Index(sets, threshold), []
    for place, words in enumerate(sets):
        pairs += [(other, place) for other in known.near(words)]
        known.add(place, words)
    return sorted(pairs)


class _Index:
    """Word sets, to be found by others that overlap with them by at least `threshold`.

    Exact, yet far from all-against-all: sets that overlap so much must share one of their rarest
    words, so only those few words are looked up (prefix filtering). How rare a word is, all sets
    tell that will be added or asked for.
    """

    def __init__(self, sets: Iterable[set[str]], threshold: float) -> None:
        self._frequency = Counter(word for words in sets for word in words)
        self._threshold = threshold
        self._sets: dict[int, set[str]] = {}
        self._places: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, place: int, words: set[str]) -> None:
        self._sets[place] = words
        for word in self._rarest(words):
            self._places[word].append(place)

    def near(self, words: set[str]) -> set[int]:
        """The places of added sets that overlap with `words`."""
        candidates = {place for word in self._rarest(words) for place in self._places.get(word, ())}
        return {place for place in candidates if self._overlap(words, self._sets[place])}

    def _rarest(self, words: set[str]) -> list[str]:
        ordered = sorted(words, key=lambda word: (self._frequency[word], word))
        return ordered[: len(words) - math.ceil(self._threshold * len(words)) + 1]

    def _overlap(self, one: set[str], other: set[str]) -> bool:
        return len(one & other) >= self._threshold * len(one | other)


def _words(text: str) -> set[str]:
    return set(normalise(text).split())


def _prompt_key(example: TrainingExample) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, normalise(message.content)) for message in example.prompt)


def _groups(keys: Iterable[Hashable]) -> list[Group]:
    places: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return [tuple(group) for group in places.values()]
