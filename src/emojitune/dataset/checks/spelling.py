"""Likely misspellings: a letter too many, too few or wrong, or two letters swapped."""

from collections import defaultdict
from collections.abc import Iterable

from emojitune.dataset.checks.near_duplicates import normalise

_MIN_LETTERS = 4  # of words that stay the same word with a letter more or less
_MIN_LETTERS_SUBSTITUTION = 7  # of words that stay the same word with another letter in one place
_SUFFIXES = ("face", "emoji", "s")  # often added to a label, or left off


def letters_and_digits(word: str) -> str:
    """The letters and digits of a word or label, without its style."""
    return normalise(word).replace(" ", "").replace("_", "")


class SpellingIndex:
    """Finds the words that another one may be a misspelling of, without comparing it with all.

    Like SymSpell, it indexes each word by itself and by its deletions: the word less one letter.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._by_key: defaultdict[str, list[str]] = defaultdict(list)
        for word in words:
            for key in _keys(letters_and_digits(word)):
                self._by_key[key].append(word)

    def similar(self, word: str) -> list[str]:
        """Words that differ from `word` by a typo, style or a suffix; the word itself if known."""
        letters = letters_and_digits(word)
        candidates = {other for key in _keys(letters) for other in self._by_key.get(key, ())}
        return sorted(
            other for other in candidates if _is_variant(letters, letters_and_digits(other))
        )


def _keys(letters: str) -> set[str]:
    """The keys of a word, of which a misspelling of it shares one: itself, and less a letter."""
    deletions = {letters[:i] + letters[i + 1 :] for i in range(len(letters))}
    return {letters, _stem(letters), *(deletions if len(letters) >= _MIN_LETTERS else ())}


def _stem(letters: str) -> str:
    for suffix in _SUFFIXES:
        if letters.endswith(suffix) and len(letters) - len(suffix) >= _MIN_LETTERS:
            return letters.removesuffix(suffix)
    return letters


def _is_variant(one: str, other: str) -> bool:
    if one == other:
        return True
    if list(filter(str.isdigit, one)) != list(filter(str.isdigit, other)):
        return False  # numbers differ on purpose
    return _stem(one) == _stem(other) or _is_typo(one, other)


def _is_typo(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if len(short) < _MIN_LETTERS:
        return False
    if len(short) < len(long):
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    wrong = [i for i in range(len(one)) if one[i] != other[i]]
    if len(wrong) == 1:
        return len(one) >= _MIN_LETTERS_SUBSTITUTION
    return (
        len(wrong) == 2
        and wrong[1] == wrong[0] + 1
        and one[wrong[0]] == other[wrong[1]]
        and one[wrong[1]] == other[wrong[0]]
    )
