"""Which labels are taken for slips of others, and which are left alone."""

import pytest

from emojitune.dataset.checks.labels import LabelMatcher, check_labels
from emojitune.dataset.checks.spelling import Spelling
from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.rules import Issue


def issues_of(replies: dict[str, int]) -> list[Issue]:
    said = [reply for reply, count in replies.items() for _ in range(count)]
    examples = [TrainingExample((Message("assistant", reply),)) for reply in said]
    return list(check_labels(examples, range(1, len(said) + 1)))


def slips(replies: dict[str, int]) -> list[str]:
    return [issue.advice for issue in issues_of(replies) if issue.code == "near_miss"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("(partty)", "(party)"),
        ("(pary)", "(party)"),
        ("(wvae)", "(wave)"),
        ("(confettu)", "(confetti)"),
        ("(sleepingface)", "(sleeping)"),
        ("(happy_face)", "(happyface)"),
        ("Refund requests", "refund request"),
    ],
)
def test_alike(one: str, other: str) -> None:
    assert Spelling([other]).alike(one) == [other]


@pytest.mark.parametrize(
    ("one", "other"),
    [("(boat)", "(goat)"), ("(cat)", "(cats)"), ("(route66)", "(route67)"), ("(yes)", "(no)"),
     ("(happy)", "(unhappy)"), ("(abcdefg)", "(abdcegf)")],
)  # fmt: skip
def test_not_alike(one: str, other: str) -> None:
    assert Spelling([other]).alike(one) == []


def test_a_slip_is_rare_and_what_was_meant_frequent() -> None:
    assert slips({"(invoice)": 9, "(invocie)": 1}) == ['Did you mean "(invoice)"?']
    assert slips({"(invoice)": 9, "(invocie)": 3}) == []
    assert slips({"(invoice)": 2, "(invocie)": 1}) == []


def test_two_labels_of_ours_are_no_slips_of_each_other() -> None:
    assert slips({"(sleeping)": 9, "(sleepingface)": 1}) == []


def test_a_label_of_ours_may_be_meant_though_the_file_has_none_of_it() -> None:
    assert slips({"(wave)": 5, "(cool)": 5, "(partty)": 1}) == ['Did you mean "(party)"?']


def test_nothing_is_said_of_prose() -> None:
    assert issues_of({f"It depends, in {i} ways.": 1 for i in range(20)}) == []


def test_replies_out_of_style_with_what_was_meant() -> None:
    found = issues_of({"(invoice)": 6, "(claim)": 6, "Invoice": 1, "a bill": 1})
    told = [(issue.line, issue.advice[:22]) for issue in found if issue.code == "off_style"]
    assert told == [(13, "Did you mean (invoice)"), (14, "Replies can be held to")]


def test_an_emoji_stands_for_its_label() -> None:
    assert LabelMatcher(["(wave)", "(cool)"]).by("👋") == "(wave)"
    assert LabelMatcher(["(cool)"]).by("👋") is None


def test_what_may_be_two_labels_is_none() -> None:
    assert LabelMatcher(["(highfive)", "(high_five)"]).by("High five!") is None


def test_imbalance() -> None:
    codes = [issue.code for issue in issues_of({"(a)": 40, "(b)": 4, "(c)": 3})]
    assert codes == ["imbalance"]
    assert issues_of({"(a)": 30, "(b)": 4, "(c)": 4}) == []
