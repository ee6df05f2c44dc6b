"""The checks on files with planted faults, each of which they must find, and on clean ones."""

import json
from pathlib import Path

import pytest

from emojitune.dataset.rules import RULES
from emojitune.dataset.validation import DatasetReport, check_file

DATA = Path(__file__).parents[1] / "data"
SHIPPED = Path(__file__).parents[2] / "data"
CONTEXT_TOKENS = 8192  # that of the default base model
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
PLANTED_ELSEWHERE = {"too_deep"}  # takes a line of many thousand brackets


def check(name: str) -> DatasetReport:
    file = DATA / "broken" / f"{name}.jsonl"
    if name != "leaked":
        return check_file(file, context_tokens=CONTEXT_TOKENS)
    training = check_file(DATA / "clean" / "labels.jsonl")
    return check_file(file, minimum_examples=1, name="validation file", training=training)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_planted_fault_is_found_and_no_other(name: str) -> None:
    issues = [[issue.line, issue.code] for issue in check(name).issues]
    assert sorted(issues, key=str) == sorted(EXPECTED[name], key=str)


def test_every_file_is_expected_and_every_code_planted() -> None:
    files = {file.stem for file in (DATA / "broken").iterdir()}
    assert files == EXPECTED.keys()
    assert len(files) >= 30
    planted = {code for faults in EXPECTED.values() for _, code in faults}
    assert planted == RULES.keys() - PLANTED_ELSEWHERE


@pytest.mark.parametrize("name", ["labels", "open_ended", "multi_turn", "tool_calls", "null_keys"])
def test_clean_files_have_no_issues(name: str) -> None:
    assert check_file(DATA / "clean" / f"{name}.jsonl").issues == ()


def test_our_own_files_have_one_note() -> None:
    training = check_file(SHIPPED / "emoji_ft_train.jsonl")
    validation = check_file(SHIPPED / "emoji_ft_valid.jsonl", minimum_examples=1, training=training)
    for report in (training, validation):
        assert [issue.code for issue in report.issues] == ["labels_seen_once"]


def test_no_secret_is_reported() -> None:
    for name in ("keys", "private_key_and_address"):
        text = " ".join(issue.message + issue.advice for issue in check(name).issues)
        for secret in ("sk-", "AKIA", "ghp_", "BEGIN", "eyJ", "@"):
            assert secret not in text


def test_the_documentation_has_every_rule() -> None:
    text = (Path(__file__).parents[2] / "docs" / "training-file.md").read_text(encoding="utf-8")
    table = text.split("| code | level | meaning | advice |\n|---|---|---|---|\n")[1]
    assert table.split("\n\n")[0].splitlines() == [
        f"| `{code}` | {rule.severity} | {rule.meaning} | {rule.advice} |"
        for code, rule in RULES.items()
    ]
