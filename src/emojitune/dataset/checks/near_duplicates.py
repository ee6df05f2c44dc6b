"""Texts that say the same, or nearly, in time that grows with their number alone.

Equal: equal after normalisation (case, punctuation, spacing). Near: their sets of words overlap by
`NEAR` (Jaccard). Knows nothing of examples.
"""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, combinations, islice

NEAR = 0.8
_SHORT = 30  # words up to which two rare ones are looked up at a time
_MOST_COMPARED = 64  # texts that one is held against: only crowds of alike texts have more

Words = tuple[int, ...]  # the ranks of a text's distinct words, the rarest first


class _LettersOnly(dict[int, str]):
    """A table for str.translate that makes a blank of what is no letter, digit, mark or symbol."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        kept = letter.isalnum() or unicodedata.category(letter)[0] in "MS"
        self[code] = letter if kept else " "
        return self[code]


_LETTERS_ONLY = _LettersOnly({ord("'"): "", ord("’"): ""})


@lru_cache(maxsize=4096)  # system prompts and labels come again and again
def normalise(text: str) -> str:
    """`text` without case, punctuation and spacing: words separated by one blank."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_LETTERS_ONLY).split())


def find_near_duplicates(texts: Sequence[str], *, threshold: float = NEAR) -> list[tuple[int, int]]:
    """(an earlier place, place) for each text that one before it equals, or is near to."""
    known = _NearIndex(threshold)
    found = []
    for place, words in enumerate(_ranked(texts)):
        earlier = known.find(words)
        if earlier is not None:
            found.append((earlier, place))
        known.add(place, words)
    return found


def find_near_duplicates_of(
    ours: Sequence[str], theirs: Sequence[str], *, threshold: float = NEAR
) -> list[tuple[int, int]]:
    """(a place in ours, place in theirs) for each of theirs that one of ours equals, or is near."""
    ranked = list(_ranked([*ours, *theirs]))
    known = _NearIndex(threshold)
    for place, words in enumerate(ranked[: len(ours)]):
        known.add(place, words)
    found = ((known.find(words), place) for place, words in enumerate(ranked[len(ours) :]))
    return [(our_place, place) for our_place, place in found if our_place is not None]


def _ranked(texts: Sequence[str]) -> Iterator[Words]:
    split = [set(normalise(text).split()) for text in texts]
    frequency = Counter(chain.from_iterable(split))
    by_rarity = sorted(frequency, key=lambda word: (frequency[word], word))
    rank = {word: number for number, word in enumerate(by_rarity)}
    return (tuple(sorted([rank[word] for word in words])) for words in split)


class _NearIndex:
    """Finds a text near to another without comparing all: they share some of their rarest words.

    Of a text of n words, `spare = n - threshold * n` may lack in a near one. So near texts have one
    of their `spare + 1` rarest words in common, and two of the `spare + 2` rarest (prefix
    filtering). Exact, but where more than `_MOST_COMPARED` texts share such words.
    """

    def __init__(self, threshold: float) -> None:
        assert threshold > 0.5  # below it, a text of one word may be near to one of two
        self._threshold = threshold
        self._equal: dict[Words, int] = {}
        self._sharing: defaultdict[Hashable, list[tuple[int, Words]]] = defaultdict(list)

    def add(self, place: int, words: Words) -> None:
        if not words or words in self._equal:
            return
        self._equal[words] = place
        for key in self._keys(words):
            sharing = self._sharing[key]
            if len(sharing) < _MOST_COMPARED:
                sharing.append((place, words))

    def find(self, words: Words) -> int | None:
        """The place of an added text that is near to these words."""
        if words in self._equal:
            return self._equal[words]
        common = frozenset(words).intersection
        sharing = [self._sharing[key] for key in self._keys(words) if key in self._sharing]
        sharing.sort(key=len)  # the rarest pair tells most
        for place, other in islice(chain.from_iterable(sharing), _MOST_COMPARED):
            shared = len(common(other))
            if shared >= self._threshold * (len(words) + len(other) - shared):
                return place
        return None

    def _keys(self, words: Words) -> Iterator[Hashable]:
        """Pairs of words in short texts; in long ones, where pairs are many, single words."""
        spare = len(words) - math.ceil(self._threshold * len(words))
        if len(words) <= _SHORT:
            yield from combinations(words[: spare + 2], 2)
        if len(words) > self._threshold * _SHORT:  # what is near to a long text may be a short one
            yield from words[: spare + 1]
