"""Near duplicates among texts: a set-similarity join, in time that grows with their number alone.

Two texts are equal when they are equal after normalisation (case, punctuation, spacing), and near
duplicates when the Jaccard similarity of their sets of words reaches a threshold. Knows no
examples.
"""

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, combinations, islice

SIMILARITY_THRESHOLD = 0.8
_MAX_PAIRED_WORDS = 30  # length of texts up to which pairs of words are index keys
_MAX_CANDIDATES = 64  # that one text is compared with: only crowds of similar texts have more

Words = tuple[int, ...]  # ranks of the distinct words of a text, the rarest first


class _WordCharacters(dict[int, str]):
    """A table for str.translate: a space for all but letters, digits, marks and symbols."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = character.isalnum() or unicodedata.category(character)[0] in "MS"
        self[code] = character if kept else " "
        return self[code]


_WORD_CHARACTERS = _WordCharacters({ord("'"): "", ord("’"): ""})


@lru_cache(maxsize=4096)  # system prompts and labels repeat
def normalise(text: str) -> str:
    """`text` without case, punctuation and spacing: words separated by single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_WORD_CHARACTERS).split())


def find_near_duplicates(
    texts: Sequence[str], *, threshold: float = SIMILARITY_THRESHOLD
) -> list[tuple[int, int]]:
    """(an earlier index, index) of each text that equals or nearly repeats an earlier one."""
    seen = _PrefixIndex(threshold)
    pairs = []
    for index, words in enumerate(_rank_words(texts)):
        earlier = seen.find(words)
        if earlier is not None:
            pairs.append((earlier, index))
        seen.add(index, words)
    return pairs


def find_near_duplicates_of(
    originals: Sequence[str], texts: Sequence[str], *, threshold: float = SIMILARITY_THRESHOLD
) -> list[tuple[int, int]]:
    """(index in originals, index in texts) of each text that equals or nearly repeats one."""
    ranked = list(_rank_words([*originals, *texts]))
    seen = _PrefixIndex(threshold)
    for index, words in enumerate(ranked[: len(originals)]):
        seen.add(index, words)
    matches = ((seen.find(words), index) for index, words in enumerate(ranked[len(originals) :]))
    return [(original, index) for original, index in matches if original is not None]


def _rank_words(texts: Sequence[str]) -> Iterator[Words]:
    word_sets = [set(normalise(text).split()) for text in texts]
    frequency = Counter(chain.from_iterable(word_sets))
    by_rarity = sorted(frequency, key=lambda word: (frequency[word], word))
    rank = {word: number for number, word in enumerate(by_rarity)}
    return (tuple(sorted([rank[word] for word in words])) for words in word_sets)


class _PrefixIndex:
    """Finds similar texts without comparing all: similar texts share some of their rarest words.

    A similar text may lack `spare = n - threshold * n` of the n words of a text. So the two have
    one of their `spare + 1` rarest words in common, and two of the `spare + 2` rarest: the prefix
    filtering of set-similarity joins (AllPairs, PPJoin). Exact, unless more than `_MAX_CANDIDATES`
    texts share such words.
    """

    def __init__(self, threshold: float) -> None:
        assert threshold > 0.5  # below it, a text of one word may be similar to one of two
        self._threshold = threshold
        self._equal: dict[Words, int] = {}
        self._by_key: defaultdict[Hashable, list[tuple[int, Words]]] = defaultdict(list)

    def add(self, index: int, words: Words) -> None:
        """Add a text by its words."""
        if not words or words in self._equal:
            return
        self._equal[words] = index
        for key in self._keys(words):
            sharing = self._by_key[key]
            if len(sharing) < _MAX_CANDIDATES:
                sharing.append((index, words))

    def find(self, words: Words) -> int | None:
        """Index of an added text that is equal or similar to these words."""
        if words in self._equal:
            return self._equal[words]
        common = frozenset(words).intersection
        sharing = [self._by_key[key] for key in self._keys(words) if key in self._by_key]
        sharing.sort(key=len)  # the rarest key first: its texts are the likeliest
        for index, other in islice(chain.from_iterable(sharing), _MAX_CANDIDATES):
            shared = len(common(other))
            if shared >= self._threshold * (len(words) + len(other) - shared):
                return index
        return None

    def _keys(self, words: Words) -> Iterator[Hashable]:
        """Pairs of words of short texts; single words of long ones, whose pairs are too many."""
        spare = len(words) - math.ceil(self._threshold * len(words))
        if len(words) <= _MAX_PAIRED_WORDS:
            yield from combinations(words[: spare + 2], 2)
        # A text that is similar to a long one may be short enough for pairs: it has both keys.
        if len(words) > self._threshold * _MAX_PAIRED_WORDS:
            yield from words[: spare + 1]
