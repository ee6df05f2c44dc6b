"""Frequencies, words and tokens; and when replies form a closed vocabulary."""

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.statistics import (
    closed_vocabulary,
    describe,
    estimate_tokens,
    shared_system_prompt,
)


def example(question: str, *replies: str) -> TrainingExample:
    answers = [Message("assistant", reply) for reply in replies]
    return TrainingExample((Message("system", "Be brief."), Message("user", question), *answers))


def test_describe() -> None:
    numbers = describe(
        [example("one two", "(b)"), example("one two three", "(a)"), example("one", "(b)")]
    )
    assert numbers.examples == 3
    assert numbers.system_prompts == ("Be brief.",)
    assert numbers.frequencies == (("(b)", 2), ("(a)", 1))
    assert numbers.labels_in_style == 3
    assert numbers.words == (1, 2, 3)


def test_a_system_prompt_is_shared_when_all_begin_with_it() -> None:
    both = [example("a", "(b)"), example("c", "(a)")]
    assert shared_system_prompt(both) == "Be brief."
    without = TrainingExample((Message("user", "a"), Message("assistant", "(b)")))
    assert shared_system_prompt([*both, without]) == ""
    assert shared_system_prompt([without, without]) == ""
    assert shared_system_prompt([]) == ""


def test_describe_nothing() -> None:
    assert describe([]).words == (0, 0, 0)


def test_tokens_are_estimated_from_characters() -> None:
    assert estimate_tokens([Message("user", "12345678"), Message("assistant", "1")]) == 11


def test_labels_in_parentheses_are_closed_even_when_each_is_used_once() -> None:
    assert closed_vocabulary([example("a", "(b)"), example("c", "(a)")]) == ("(a)", "(b)")


def test_few_distinct_replies_are_closed() -> None:
    intents = [example(str(i), ["Refund request", "Opening hours"][i % 2]) for i in range(10)]
    assert closed_vocabulary(intents) == ("Opening hours", "Refund request")


@pytest.mark.parametrize(
    "replies",
    [
        ["Paris", "London", "Rome", "Paris"],  # short answers, hardly ever repeated
        ["two\nlines"] * 10,
        ["x" * 65] * 10,
        [" "] * 10,
    ],
)
def test_other_replies_are_open(replies: list[str]) -> None:
    examples = [example(str(i), reply) for i, reply in enumerate(replies)]
    assert closed_vocabulary(examples) == ()


def test_no_examples_no_vocabulary() -> None:
    assert closed_vocabulary([]) == ()


def test_untrained_replies_do_not_count() -> None:
    quiet = Message("assistant", "Let me think\nabout it.", weight=0)
    one = TrainingExample((quiet, Message("user", "and?"), Message("assistant", "(yes)")))
    assert closed_vocabulary([one]) == ("(yes)",)
