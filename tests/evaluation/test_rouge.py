"""The parts of ROUGE, against their definitions; its scores are in `graders/test_similarity.py`."""

import random
from functools import cache

from emojitune.evaluation.rouge import longest_common_subsequence, ngrams, words


def lcs_by_definition(one: str, other: str) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if one[i - 1] == other[j - 1]:
            return 1 + length(i - 1, j - 1)
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(one), len(other))


def test_the_longest_common_subsequence_is_that_of_its_definition() -> None:
    draw = random.Random(1)
    for _ in range(200):
        one, other = ("".join(draw.choices("abc", k=draw.randrange(12))) for _ in range(2))
        assert longest_common_subsequence(one, other) == lcs_by_definition(one, other)


def test_words_are_runs_of_letters_and_digits_in_lower_case() -> None:
    assert words("It's (Party) time, 2 Café!") == ["it", "s", "party", "time", "2", "café"]


def test_ngrams_are_counted() -> None:
    assert ngrams(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert not ngrams(["a"], 2)
