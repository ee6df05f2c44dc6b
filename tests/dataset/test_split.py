"""The cut, and what must not be on both sides of it."""

import random

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.split import (
    conflicts,
    duplicates,
    leakage,
    near_pairs,
    normalise,
    split_examples,
)
from emojitune.errors import InvalidRequestError


def example(question: str, reply: str = "(a)") -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


def test_normalise() -> None:
    assert normalise("  I'm SO\thappy!!! ") == "im so happy"
    assert normalise("I’m so—happy") == "im so happy"
    assert normalise("🎉 हिन्दी") == "🎉 हिन्दी"


def test_split_is_seeded_whole_and_in_file_order() -> None:
    examples = [example(f"question {i}") for i in range(100)]
    training, validation = split_examples(examples, share=0.2, seed=1)
    assert (len(training), len(validation)) == (80, 20)
    assert sorted(examples, key=id) == sorted((*training, *validation), key=id)
    assert list(validation) == [e for e in examples if e in validation]
    assert split_examples(examples, share=0.2, seed=1) == (training, validation)
    assert split_examples(examples, share=0.2, seed=2) != (training, validation)


def test_split_keeps_equal_prompts_together() -> None:
    examples = [example(f"question {i % 10}!" + "?" * (i // 10)) for i in range(40)]
    training, validation = split_examples(examples, share=0.5, seed=3)
    assert leakage(training, validation) == []


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_split_refuses_an_impossible_share(share: float) -> None:
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        split_examples([example("a")], share=share, seed=0)


def test_duplicates_and_conflicts() -> None:
    examples = [
        example("Good morning"),
        example("good morning!"),
        example("Good morning", "(b)"),
        example("Good night"),
    ]
    assert duplicates(examples) == [(0, 1)]
    assert conflicts(examples) == [(0, 2)]


def test_leakage_finds_equal_and_near_questions() -> None:
    training = [example("the cat sat on the old red mat today"), example("something else")]
    validation = [
        example("Today the cat sat on the old red mat!"),
        example("the cat sat on the old red mat"),
        example("the dog ran off"),
    ]
    assert leakage(training, validation) == [(0, 0), (0, 1)]


def test_leakage_is_what_near_pairs_finds_across_the_cut() -> None:
    dice = random.Random(1)
    texts = [" ".join(dice.choices("abcdefg", k=dice.randint(0, 6))) for _ in range(120)]
    found = leakage([example(t) for t in texts[:80]], [example(t) for t in texts[80:]])
    assert found == sorted((i, j - 80) for i, j in near_pairs(texts) if i < 80 <= j)
    assert len(found) > 10


def test_near_pairs_finds_what_comparing_all_finds() -> None:
    dice = random.Random(0)
    texts = [" ".join(dice.choices("abcdefg", k=dice.randint(0, 6))) for _ in range(120)]
    sets = [set(text.split()) for text in texts]
    expected = [
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if sets[i] and sets[j] and len(sets[i] & sets[j]) >= 0.6 * len(sets[i] | sets[j])
    ]
    assert near_pairs(texts, threshold=0.6) == sorted(expected)
