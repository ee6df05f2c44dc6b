"""The cut, and what must not be on both sides of it."""

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.split import (
    leakage,
    near_duplicates,
    same_prompts,
    split_places,
)
from emojitune.errors import InvalidRequestError


def example(question: str, reply: str = "(a)") -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


def test_split_is_seeded_whole_and_in_file_order() -> None:
    examples = [example(f"question {i}") for i in range(100)]
    training, validation = split_places(examples, share=0.2, seed=1)
    assert (len(training), len(validation)) == (80, 20)
    assert sorted((*training, *validation)) == list(range(100))
    assert (list(training), list(validation)) == (sorted(training), sorted(validation))
    assert split_places(examples, share=0.2, seed=1) == (training, validation)
    assert split_places(examples, share=0.2, seed=2) != (training, validation)


def test_split_keeps_equal_prompts_together() -> None:
    examples = [example(f"question {i % 10}!" + "?" * (i // 10)) for i in range(40)]
    sides = split_places(examples, share=0.5, seed=3)
    training, validation = ([examples[place] for place in side] for side in sides)
    assert leakage(training, validation) == []


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_split_refuses_an_impossible_share(share: float) -> None:
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        split_places([example("a")], share=share, seed=0)


def test_same_prompts() -> None:
    examples = [
        example("Good morning"),
        example("good morning!"),
        example("Good morning", "(b)"),
        example("Good night"),
    ]
    assert same_prompts(examples) == [(0, 1, 2)]


def test_near_duplicates_are_near_and_not_the_same() -> None:
    examples = [
        example("the cat sat on the old red mat"),
        example("The cat sat on the old red mat!"),
        example("the cat sat on that old red mat"),
    ]
    assert near_duplicates(examples) == [(0, 2)]


def test_leakage_finds_equal_and_near_questions() -> None:
    training = [example("the cat sat on the old red mat today"), example("something else")]
    validation = [
        example("Today the cat sat on the old red mat!"),
        example("the cat sat on the old red mat"),
        example("the dog ran off"),
    ]
    assert leakage(training, validation) == [(0, 0), (0, 1)]
