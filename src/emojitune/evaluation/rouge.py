"""ROUGE: the n-grams, or the longest common subsequence, that a text shares with a reference.

Words are runs of letters and digits, in lower case. Text without any word is compared as it stands.
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

Pause = Callable[[], None]
"""Called between short steps of long work; may sleep, or raise to end the work."""


def no_pause() -> None:
    """A pause of no length."""


def rouge_n(order: int, text: str, reference: str) -> float:
    """F1 of the n-grams of `order` words, from 0 to 1."""
    candidate, expected = words(text), words(reference)
    if len(candidate) < order or len(expected) < order:
        return float(text == reference)
    candidate_grams, expected_grams = ngrams(candidate, order), ngrams(expected, order)
    matches = (candidate_grams & expected_grams).total()
    return _f1(matches, candidate_grams.total(), expected_grams.total())


def rouge_l(text: str, reference: str, pause: Pause = no_pause) -> float:
    """F1 of the longest common subsequence of words, from 0 to 1."""
    candidate, expected = words(text), words(reference)
    if not candidate or not expected:
        return float(text == reference)
    common = longest_common_subsequence(candidate, expected, pause)
    return _f1(common, len(candidate), len(expected))


def words(text: str) -> list[str]:
    """The words of `text`, in lower case and in order."""
    return re.findall(r"\w+", text.lower())


def ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each sequence of `order` tokens occurs."""
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def longest_common_subsequence(
    one: Sequence[Hashable], other: Sequence[Hashable], pause: Pause = no_pause
) -> int:
    """The length, by Hyyrö's bit-parallel algorithm: a row of the table is one integer."""
    positions: dict[Hashable, int] = {}
    for index, item in enumerate(one):
        pause()
        positions[item] = positions.get(item, 0) | 1 << index
    ones = (1 << len(one)) - 1
    row = ones
    for item in other:
        pause()
        matches = row & positions.get(item, 0)
        row = ((row + matches) | (row - matches)) & ones
    return len(one) - row.bit_count()


def _f1(matches: int, in_text: int, in_reference: int) -> float:
    return 2 * matches / (in_text + in_reference)
