"""Near duplicates are found as if all texts were compared, without comparing all."""

import random
import string

import pytest

from emojitune.dataset.checks.near_duplicates import (
    SIMILARITY_THRESHOLD,
    find_near_duplicates,
    find_near_duplicates_of,
    normalise,
)


def are_similar(one: str, other: str, threshold: float) -> bool:
    a, b = set(one.split()), set(other.split())
    return bool(a) and len(a & b) >= threshold * len(a | b)


def texts(longest: int) -> list[str]:
    """Random words, and texts that differ from an earlier one by a word or two."""
    dice = random.Random(longest)
    vocabulary = ["".join(dice.choices(string.ascii_lowercase, k=4)) for _ in range(2000)]
    made: list[str] = []
    for _ in range(400):
        words = dice.choices(vocabulary, k=dice.randint(0, longest))
        if made and dice.random() < 0.5:
            words = dice.choice(made).split()
            for _ in range(dice.randint(1, 2)):
                words[: dice.randint(0, 1)] = dice.choices(vocabulary, k=dice.randint(0, 2))
        made.append(" ".join(words))
    return made


def test_normalise() -> None:
    assert normalise("  I'm SO\thappy!!! ") == "im so happy"
    assert normalise("I’m so—happy") == "im so happy"
    assert normalise("🎉 हिन्दी") == "🎉 हिन्दी"


@pytest.mark.parametrize("threshold", [0.6, SIMILARITY_THRESHOLD])
@pytest.mark.parametrize("longest", [3, 12, 60])
def test_the_pairs_of_comparing_all_are_found(longest: int, threshold: float) -> None:
    made = texts(longest)
    pairs = find_near_duplicates(made, threshold=threshold)
    assert all(i < j and are_similar(made[i], made[j], threshold) for i, j in pairs)
    expected = {
        j
        for j in range(len(made))
        if any(are_similar(made[i], made[j], threshold) for i in range(j))
    }
    assert {j for _, j in pairs} == expected
    assert len(pairs) == len(expected) > 10


def test_one_original_is_found_for_each_text_that_repeats_one() -> None:
    originals = ["one two three four five", "wholly other words"]
    texts = ["five four three two one", "nothing of it", "Other words wholly!"]
    assert find_near_duplicates_of(originals, texts) == [(0, 0), (1, 2)]
