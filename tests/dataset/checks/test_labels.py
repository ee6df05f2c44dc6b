"""Labels that are taken for misspellings of others, labels that are not, and their style."""

from emojitune.dataset.checks.labels import LabelMatcher, check_labels
from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.rules import Issue


def issues_of(replies: dict[str, int]) -> list[Issue]:
    listed = [reply for reply, count in replies.items() for _ in range(count)]
    examples = [TrainingExample((Message("assistant", reply),)) for reply in listed]
    return list(check_labels(examples, range(1, len(listed) + 1)))


def misspellings(replies: dict[str, int]) -> list[str]:
    return [issue.advice for issue in issues_of(replies) if issue.code == "near_miss"]


def test_a_misspelling_is_rare_and_the_label_that_was_meant_frequent() -> None:
    assert misspellings({"(invoice)": 9, "(invocie)": 1}) == ['Did you mean "(invoice)"?']
    assert misspellings({"(invoice)": 9, "(invocie)": 3}) == []
    assert misspellings({"(invoice)": 2, "(invocie)": 1}) == []


def test_two_labels_of_ours_are_not_misspellings_of_each_other() -> None:
    assert misspellings({"(sleeping)": 9, "(sleepingface)": 1}) == []


def test_a_label_of_ours_may_be_meant_although_the_file_never_has_it() -> None:
    assert misspellings({"(wave)": 5, "(cool)": 5, "(partty)": 1}) == ['Did you mean "(party)"?']


def test_prose_has_no_issues() -> None:
    assert issues_of({f"It depends, in {i} ways.": 1 for i in range(20)}) == []


def test_replies_off_style_with_the_label_that_was_meant() -> None:
    issues = issues_of({"(invoice)": 6, "(claim)": 6, "Invoice": 1, "a bill": 1})
    meant, not_a_label = (issue for issue in issues if issue.code == "off_style")
    assert (meant.line, not_a_label.line) == (13, 14)
    assert meant.advice.startswith("Did you mean (invoice)")
    assert not_a_label.advice.startswith("Replies can be constrained to labels only")


def test_an_emoji_stands_for_its_label() -> None:
    assert LabelMatcher(["(wave)", "(cool)"]).match("👋") == "(wave)"
    assert LabelMatcher(["(cool)"]).match("👋") is None


def test_a_reply_that_may_be_two_labels_matches_none() -> None:
    assert LabelMatcher(["(highfive)", "(high_five)"]).match("High five!") is None


def test_imbalance() -> None:
    codes = [issue.code for issue in issues_of({"(a)": 40, "(b)": 4, "(c)": 3})]
    assert codes == ["imbalance"]
    assert issues_of({"(a)": 30, "(b)": 4, "(c)": 4}) == []
