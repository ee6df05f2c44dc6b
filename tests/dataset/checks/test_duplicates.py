"""Prompts that a file repeats, or shares with another."""

from emojitune.dataset.checks.duplicates import (
    find_leakage,
    group_by_prompt,
    near_duplicate_prompts,
)
from emojitune.dataset.example import Message, TrainingExample


def example(question: str, reply: str = "(a)") -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


def test_prompts_are_grouped_by_their_normalised_text() -> None:
    examples = [
        example("Good morning"),
        example("good morning!"),
        example("Good morning", "(b)"),
        example("Good night"),
    ]
    assert group_by_prompt(examples) == [(0, 1, 2), (3,)]


def test_near_duplicates_are_similar_and_not_the_same() -> None:
    examples = [
        example("the cat sat on the old red mat"),
        example("The cat sat on the old red mat!"),
        example("the cat sat on that old red mat"),
    ]
    assert near_duplicate_prompts(examples) == [(0, 2)]


def test_leakage_finds_equal_and_near_questions() -> None:
    training = [example("the cat sat on the old red mat today"), example("something else")]
    validation = [
        example("Today the cat sat on the old red mat!"),
        example("the cat sat on the old red mat"),
        example("the dog ran off"),
    ]
    assert find_leakage(training, validation) == [(0, 0), (0, 1)]
