"""The split of a round, and the pooling of rounds."""

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.cross_validation import leave_one_out_by_label, pool_rounds
from emojitune.evaluation.evaluate import evaluate
from emojitune.evaluation.metrics import Reply
from emojitune.evaluation.summary import estimate_metrics


def example(question: str, reply: str) -> TrainingExample:
    return TrainingExample((Message("user", question), Message("assistant", reply)))


EXAMPLES = [
    *(example(f"a{number}", "(a)") for number in range(5)),
    example("only one", "(b)"),
    *(example(f"c{number}", "(c)") for number in range(2)),
]


def test_one_example_of_each_label_with_two_or_more_is_left_out() -> None:
    fold = leave_one_out_by_label(EXAMPLES, 3)
    assert [one.reply for one in fold.held_out] == ["(a)", "(c)"]
    assert [one.reply for one in fold.training] == ["(a)"] * 4 + ["(b)", "(c)"]
    assert set(fold.training) | set(fold.held_out) == set(EXAMPLES)
    assert not set(fold.training) & set(fold.held_out)


def test_the_seed_chooses() -> None:
    assert leave_one_out_by_label(EXAMPLES, 3) == leave_one_out_by_label(EXAMPLES, 3)
    chosen = {leave_one_out_by_label(EXAMPLES, seed).held_out for seed in range(100)}
    assert len(chosen) == 10  # 5 x 2 ways


def test_a_file_of_single_examples_has_nothing_to_leave_out() -> None:
    with pytest.raises(InvalidRequestError, match="two or more"):
        leave_one_out_by_label([example("x", "(a)"), example("y", "(b)")], 1)


def test_rounds_are_pooled_and_an_example_left_out_twice_is_one_observation() -> None:
    rounds = [
        evaluate(lambda _: Reply("(a)"), examples, ())
        for examples in (EXAMPLES[:2], EXAMPLES[:2], EXAMPLES[6:])
    ]
    pooled = pool_rounds(rounds)
    assert [one.example for one in pooled.scored] == [*EXAMPLES[:2], *EXAMPLES[:2], *EXAMPLES[6:]]
    estimate = estimate_metrics(pooled)["top_1"]
    assert estimate.value == pytest.approx(4 / 6)
    assert (estimate.low, estimate.high) == (0, 1)  # four examples, of which two hit
