"""check_file reports everything and never raises; load_examples raises OpenAI's messages."""

import json
from pathlib import Path

import pytest

from emojitune.dataset.validation import check_file, load_examples
from emojitune.errors import DatasetError

GOOD = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "(wave)"}]


def row(number: int = 0, **changes: object) -> str:
    messages = [{"role": "user", "content": f"hello {number}"}, GOOD[1]]
    return json.dumps({"messages": messages, **changes})


def messages(*entries: object) -> str:
    return json.dumps({"messages": list(entries)})


def write(path: Path, lines: list[str] | list[bytes]) -> Path:
    raw = [line.encode() if isinstance(line, str) else line for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def codes_of(tmp_path: Path, line: str | bytes) -> list[str]:
    raw = line if isinstance(line, bytes) else line.encode()
    file = write(tmp_path / "f.jsonl", [raw, *(row(i).encode() for i in range(10))])
    return [issue.code for issue in check_file(file).issues]


def test_a_good_file_has_no_issues(tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "f.jsonl", [row(i) for i in range(12)]))
    assert report.ok
    assert report.issues == ()
    assert report.lines == tuple(range(1, 13))
    assert report.examples[3].question == "hello 3"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{'messages': []}", "invalid_json"),
        (b'{"messages": NaN}', "invalid_json"),
        (b'{"messages": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b"[" * 200_000, "too_deep"),
        (b'{"messages": "\xff"}', "not_utf8"),
        ("[1, 2]", "not_a_dictionary"),
        ('"text"', "not_a_dictionary"),
        ('{"prompt": "a", "completion": "b"}', "other_format"),
        ('{"question": "a", "answer": "b"}', "missing_messages"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c"}', "preference_format"),
        ('{"messages": []}', "invalid_messages"),
        ('{"messages": {"role": "user"}}', "invalid_messages"),
        (row(99, extra=1), "extra_key"),
        (row(99, tools=[]), "invalid_tools"),
        (messages("hi", GOOD[1]), "invalid_message"),
        (messages({"content": "hi"}, GOOD[1]), "missing_role"),
        (messages({"role": "robot", "content": "hi"}, GOOD[1]), "unknown_role"),
        (messages({"role": ["user"], "content": "hi"}, GOOD[1]), "unknown_role"),
        (messages({"role": "tool", "content": "hi"}, GOOD[1]), "unexpected_tool_message"),
        (messages({**GOOD[0], "tool_calls": []}, GOOD[1]), "extra_key"),
        (messages({**GOOD[0], "colour": "red"}, GOOD[1]), "extra_key"),
        (messages({"role": "user"}, GOOD[1]), "invalid_content"),
        (messages({"role": "user", "content": None}, GOOD[1]), "invalid_content"),
        (messages({"role": "user", "content": []}, GOOD[1]), "invalid_content"),
        (messages({"role": "user", "content": [{"type": "image"}]}, GOOD[1]), "invalid_content"),
        (messages({"role": "user", "content": "\ud83d"}, GOOD[1]), "lone_surrogate"),
        (messages({**GOOD[0], "weight": 1}, GOOD[1]), "extra_key"),
        (messages(GOOD[0], {**GOOD[1], "weight": 2}), "invalid_weight"),
        (messages(GOOD[0], {**GOOD[1], "weight": True}), "invalid_weight"),
        (messages(GOOD[0]), "no_assistant"),
        (messages(*GOOD, GOOD[0]), "last_not_assistant"),
    ],
)
def test_each_broken_rule_is_one_error(tmp_path: Path, line: str | bytes, code: str) -> None:
    assert codes_of(tmp_path, line) == [code]
    assert not check_file(tmp_path / "f.jsonl").ok


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (messages({**GOOD[0], "name": "Ann"}, GOOD[1]), "name_ignored"),
        (messages(GOOD[0], {"role": "assistant", "content": " "}), "empty_reply"),
    ],
)
def test_doubtful_lines_are_warnings(tmp_path: Path, line: str, code: str) -> None:
    assert codes_of(tmp_path, line) == [code]
    report = check_file(tmp_path / "f.jsonl")
    assert report.ok
    assert len(report.examples) == 11


def test_content_parts_are_joined_and_weights_kept(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    line = messages({"role": "developer", "content": parts}, {**GOOD[1], "weight": 1})
    (example,) = check_file(write(tmp_path / "f.jsonl", [line]), minimum_examples=1).examples
    assert example.messages[0].content == "ab"
    assert example.messages[1].weight == 1


def test_unicode_line_separators_do_not_cut_a_line(tmp_path: Path) -> None:
    line = json.dumps({"messages": [{**GOOD[0], "content": "a\u2028b"}, GOOD[1]]})
    raw = json.loads(line)
    text = json.dumps(raw, ensure_ascii=False)
    report = check_file(write(tmp_path / "f.jsonl", [text]), minimum_examples=1)
    assert report.examples[0].question == "a\u2028b"


def test_windows_line_ends_and_a_missing_last_one_are_fine(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    file.write_bytes("\r\n".join(row(i) for i in range(10)).encode())
    assert check_file(file).issues == ()


def test_all_issues_are_found_with_their_lines(tmp_path: Path) -> None:
    lines = [row(i) for i in range(12)]
    lines[3] = "{"
    lines[7] = messages({"role": "robot", "content": 3}, GOOD[1])
    report = check_file(write(tmp_path / "f.jsonl", lines))
    assert [(i.line, i.code) for i in report.errors] == [
        (4, "invalid_json"),
        (8, "unknown_role"),
        (8, "invalid_content"),
    ]
    assert len(report.examples) == 10
    assert all(issue.advice for issue in report.issues)


def test_duplicates_and_conflicts_are_warned_of(tmp_path: Path) -> None:
    lines = [row(i) for i in range(10)]
    lines += [messages({"role": "user", "content": "Hello, 3!"}, GOOD[1])]
    lines += [messages(GOOD[0] | {"content": "hello 4"}, GOOD[1] | {"content": "(no)"})]
    report = check_file(write(tmp_path / "f.jsonl", lines))
    assert [(i.line, i.code) for i in report.warnings] == [
        (11, "duplicate_example"),
        (12, "conflicting_reply"),
    ]


def test_too_few_examples_in_openais_words(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", [row(i) for i in range(7)])
    with pytest.raises(DatasetError) as caught:
        load_examples(file)
    assert caught.value.code == "invalid_n_examples"
    assert caught.value.param == "training_file"
    assert caught.value.message == (
        "Training file has 7 example(s), but must have at least 10 examples"
    )


def test_format_errors_win_over_too_few_examples(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", [row(), messages({"content": "a"}, GOOD[1])])
    with pytest.raises(DatasetError) as caught:
        load_examples(file, param="validation_file")
    assert (caught.value.code, caught.value.param) == ("invalid_training_file", "validation_file")
    assert caught.value.message == (
        "The job failed due to an invalid validation file. Invalid file format. "
        "Example 2, message 1 Discriminator 'role' is missing in value (line 2) "
        "Use one of system, developer, user, assistant, tool."
    )


def test_malformed_json_in_openais_words(tmp_path: Path) -> None:
    lines = [row(i) for i in range(20)]
    lines[16] = '{"messages": [}'
    with pytest.raises(DatasetError) as caught:
        load_examples(write(tmp_path / "f.jsonl", lines))
    assert caught.value.message == (
        "The job failed due to an invalid training file. Invalid file format. "
        "Example 17 cannot be parsed. Error: line contains invalid json: "
        "Expecting value: line 1 column 15 (char 14) (line 17) "
        "Write one complete JSON object a line."
    )


def test_extra_keys_are_a_file_format_error(tmp_path: Path) -> None:
    lines = [row(i, mood="good") for i in range(10)]
    with pytest.raises(DatasetError) as caught:
        load_examples(write(tmp_path / "f.jsonl", lines))
    assert caught.value.code == "invalid_file_format"
    assert caught.value.message.startswith(
        "The job failed due to a file format error in the training file. "
        'Invalid file format. Example 1 contains an extra "mood". (line 1) '
        'A line has "messages", and "tools" if it has any. And 9 more:'
    )


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ('{"prompt": "a", "completion": "b"}', "invalid_file_format",
         "The job failed due to a file format error in the training file. Invalid file format. "
         "Example 1 is missing key 'messages': it is in another format, prompt and completion "
         "('prompt' and 'completion'), like lines 2, 3, 4, 5, 6, 7, 8, 9 and 1 more "
         "(line 1) Run `emojitune data convert FILE`"),
        ('{"input": {"messages": []}}', "invalid_file_format",
         "Example 1 is missing key 'messages' (line 1) Add"),
        ('{"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []}',
         "invalid_training_file",
         "The job failed due to an invalid training file. Input file is in the "
         "fine-tune-preference format, but the specified fine-tuning job is not using 'dpo' "
         "(provided method=supervised)."),
        ('{"messages": [{"role": "assistant", "content": "a"}], "tools": []}',
         "invalid_training_file",
         "Example 1: 'tools' must be a list of 1 to 128 tools, not an empty list."),
    ],
)  # fmt: skip
def test_other_formats_are_named(tmp_path: Path, line: str, code: str, words: str) -> None:
    with pytest.raises(DatasetError) as caught:
        load_examples(write(tmp_path / "f.jsonl", [line] * 10))
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_file_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    silent = [messages({**GOOD[0], "content": f"{i}"}, {**GOOD[1], "weight": 0}) for i in range(10)]
    with pytest.raises(DatasetError, match="trains nothing"):
        load_examples(write(tmp_path / "f.jsonl", silent))


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_unreadable_files_are_reported_not_raised(tmp_path: Path, name: str) -> None:
    report = check_file(tmp_path / name)
    assert not report.ok
    assert [issue.line for issue in report.issues] == [None]
    with pytest.raises(DatasetError):
        load_examples(tmp_path / name)


def test_an_empty_file_has_no_examples(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").touch()
    assert [i.code for i in check_file(tmp_path / "f.jsonl").errors] == ["invalid_n_examples"]


def test_messages_are_safe_to_show(tmp_path: Path) -> None:
    line = messages({**GOOD[0], "\ud800": 1}, GOOD[1])
    file = write(tmp_path / "f.jsonl", [line])
    for issue in check_file(file).issues:
        issue.message.encode("ascii")
