"""Words that may be misspellings of others, and words that are not."""

import pytest

from emojitune.dataset.checks.spelling import SpellingIndex


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
def test_a_misspelling_or_another_style_is_similar(one: str, other: str) -> None:
    assert SpellingIndex([other]).similar(one) == [other]


@pytest.mark.parametrize(
    ("one", "other"),
    [("(boat)", "(goat)"), ("(cat)", "(cats)"), ("(route66)", "(route67)"), ("(yes)", "(no)"),
     ("(happy)", "(unhappy)"), ("(abcdefg)", "(abdcegf)")],
)  # fmt: skip
def test_another_word_is_not_similar(one: str, other: str) -> None:
    assert SpellingIndex([other]).similar(one) == []
