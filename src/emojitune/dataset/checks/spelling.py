"""Which words may be slips of which: a letter too many, too few, or two in each other's place."""

from collections import defaultdict
from collections.abc import Iterable

from emojitune.dataset.checks.near_duplicates import normalise

_SHORTEST = 4  # letters from which a letter more or less is no other word
_LONG = 7  # letters from which another letter in a place is no other word
_ENDINGS = ("face", "emoji", "s")  # what is added to, or left off, the same name


def letters_and_digits(word: str) -> str:
    """The letters and digits of a word or label: what is left of it when style is left aside."""
    return normalise(word).replace(" ", "").replace("_", "")


class Spelling:
    """Finds the words that another may be a slip of, without comparing it to all of them."""

    def __init__(self, words: Iterable[str]) -> None:
        self._by_shape: defaultdict[str, list[str]] = defaultdict(list)
        for word in words:
            for shape in _shapes(letters_and_digits(word)):
                self._by_shape[shape].append(word)

    def alike(self, word: str) -> list[str]:
        """Words that differ from `word` by a slip, by style, or by an ending; itself if known."""
        letters = letters_and_digits(word)
        found = {one for shape in _shapes(letters) for one in self._by_shape.get(shape, ())}
        return sorted(one for one in found if _alike(letters, letters_and_digits(one)))


def _shapes(letters: str) -> set[str]:
    """What two words that are alike have in common: they themselves, or less one letter."""
    shorter = {letters[:i] + letters[i + 1 :] for i in range(len(letters))}
    return {letters, _stem(letters), *(shorter if len(letters) >= _SHORTEST else ())}


def _stem(letters: str) -> str:
    for ending in _ENDINGS:
        if letters.endswith(ending) and len(letters) - len(ending) >= _SHORTEST:
            return letters.removesuffix(ending)
    return letters


def _alike(one: str, other: str) -> bool:
    if one == other:
        return True
    if list(filter(str.isdigit, one)) != list(filter(str.isdigit, other)):
        return False  # numbers differ because they mean to
    return _stem(one) == _stem(other) or _slip(one, other)


def _slip(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    if len(short) < _SHORTEST:
        return False
    if len(short) < len(long):
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    wrong = [i for i in range(len(one)) if one[i] != other[i]]
    if len(wrong) == 1:
        return len(one) >= _LONG
    return (
        len(wrong) == 2
        and wrong[1] == wrong[0] + 1
        and one[wrong[0]] == other[wrong[1]]
        and (one[wrong[1]] == other[wrong[0]])
    )
