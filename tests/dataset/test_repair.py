"""A repaired copy has nothing left to repair, and all changes are listed."""

import json
from pathlib import Path

import pytest

from emojitune.dataset.repair import repair
from emojitune.dataset.validation import check_file

BROKEN = Path(__file__).parents[1] / "data" / "broken"
CLEAN = Path(__file__).parents[1] / "data" / "clean"
NOT_REPAIRED = {
    *("invalid_n_examples", "invalid_training_file", "conflicting_reply", "near_duplicate"),
    *("name_ignored", "empty_reply", "empty_question", "no_user", "trains_nothing", "too_long"),
    *("garbled_text", "off_style", "near_miss", "unseen_label", "leakage"),
    *("missing_system_prompt", "other_system_prompt", "unlisted_tool", "words_beside_call"),
}


@pytest.mark.parametrize("file", sorted(BROKEN.iterdir()), ids=lambda file: file.stem)
def test_the_copy_is_clean_and_repairing_it_again_changes_nothing(
    file: Path, tmp_path: Path
) -> None:
    repaired = repair(check_file(file))
    copy = tmp_path / "copy.jsonl"
    copy.write_text("".join(line + "\n" for line in repaired.lines), encoding="utf-8")
    again = check_file(copy)
    stopping = {issue.code for issue in (*again.errors, *again.warnings)}
    assert stopping <= NOT_REPAIRED
    assert repair(again).changes == ()
    assert repair(again).lines == repaired.lines


@pytest.mark.parametrize("name", ["labels", "open_ended", "multi_turn", "tool_calls", "null_keys"])
def test_a_clean_file_is_copied_to_the_byte(name: str) -> None:
    file = CLEAN / f"{name}.jsonl"
    repaired = repair(check_file(file))
    assert "".join(line + "\n" for line in repaired.lines) == file.read_text(encoding="utf-8")
    assert repaired.changes == ()


def test_issues_with_one_right_answer_are_repaired(tmp_path: Path) -> None:
    good = [
        {"messages": [{"role": "user", "content": f"{i}"}, {"role": "assistant", "content": "(a)"}]}
        for i in range(10)
    ]
    bad = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Ren\u00c3\u00a9 asks"}]},
            {"role": "assistant", "content": " (A) ", "weight": True},
            {"role": "user", "content": "and?"},
        ]
    }
    file = tmp_path / "f.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*good, bad]))
    repaired = repair(check_file(file))
    assert json.loads(repaired.lines[-1]) == {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "René asks"}]},
            {"role": "assistant", "content": "(a)", "weight": 1},
        ]
    }
    assert [change.code for change in repaired.changes] == [
        "garbled_text",
        "invalid_weight",
        "padded_reply",
        "off_style",
        "last_not_assistant",
    ]


def test_a_lone_surrogate_that_nobody_reads_stays_escaped_in_a_repaired_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file.jsonl"
    question = {"role": "user", "name": "\ud800", "content": "hi"}
    row = {"messages": [question, {"role": "assistant", "content": "(a) "}]}
    file.write_text(json.dumps(row), encoding="utf-8")
    [line] = repair(check_file(file)).lines
    assert "\\ud800" in line
    copy = tmp_path / "copy.jsonl"
    copy.write_text(f"{line}\n", encoding="utf-8")
    assert check_file(copy).examples[0].reply == "(a)"
