"""The cut of a file in two, and prompts that must not be on both sides of it."""

import pytest

from emojitune.dataset.checks.duplicates import find_leakage
from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.split import split_indices
from emojitune.errors import InvalidRequestError


def example(question: str, reply: str = "(a)") -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


def test_split_is_seeded_complete_and_in_file_order() -> None:
    examples = [example(f"question {i}") for i in range(100)]
    training, validation = split_indices(examples, share=0.2, seed=1)
    assert (len(training), len(validation)) == (80, 20)
    assert sorted((*training, *validation)) == list(range(100))
    assert (list(training), list(validation)) == (sorted(training), sorted(validation))
    assert split_indices(examples, share=0.2, seed=1) == (training, validation)
    assert split_indices(examples, share=0.2, seed=2) != (training, validation)


def test_split_keeps_equal_prompts_together() -> None:
    examples = [example(f"question {i % 10}!" + "?" * (i // 10)) for i in range(40)]
    sides = split_indices(examples, share=0.5, seed=3)
    training, validation = ([examples[index] for index in side] for side in sides)
    assert find_leakage(training, validation) == []


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0])
def test_split_refuses_an_impossible_share(share: float) -> None:
    with pytest.raises(InvalidRequestError, match="between 0 and 1"):
        split_indices([example("a")], share=share, seed=0)
