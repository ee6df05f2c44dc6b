"""Rows of other formats become chat lines, and every other row is reported."""

import json
from pathlib import Path
from typing import Any

import pytest

from emojitune.dataset.conversion.convert import ConversionResult, LeftOutRow, convert
from emojitune.dataset.parse import parse_line
from emojitune.dataset.rules import Issue
from emojitune.errors import DatasetError

WEATHER = {"name": "weather", "parameters": {"type": "object", "properties": {"place": {}}}}
TOOLS = [{"type": "function", "function": WEATHER}]


def converted(folder: Path, *rows: Any) -> ConversionResult:
    path = folder / "f"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = convert(path)
    assert len(result.lines) + len(result.left_out) == len(rows) == sum(result.formats.values())
    for line in result.lines:
        issues: list[Issue] = []
        assert parse_line(1, line.encode(), issues), issues
    return result


def rows_of(result: ConversionResult) -> list[Any]:
    return [json.loads(line) for line in result.lines]


def turns_of(result: ConversionResult) -> list[list[tuple[str, str]]]:
    """(role, content) of each message of each line."""
    return [[(m["role"], m["content"]) for m in row["messages"]] for row in rows_of(result)]


def chat(question: str, reply: str) -> list[tuple[str, str]]:
    return [("user", question), ("assistant", reply)]


# --- prompt and completion ---


@pytest.mark.parametrize(
    ("separator", "stop"),
    [
        ("\n\n###\n\n", " END"),
        (" ->", "\n"),
        ("\n\nIntent:\n\n", "###"),
        ("\nAnswer:", "<|endoftext|>"),
        ("\n", "\n\n###"),
        ("", ""),
    ],
)
def test_the_common_suffixes_of_prompts_and_completions_are_removed(
    tmp_path: Path, separator: str, stop: str
) -> None:
    pairs = [("I won!", "(party)"), ("Who is there!", "(wave)")]
    rows = [{"prompt": a + separator, "completion": f" {b}{stop}"} for a, b in pairs]
    result = converted(tmp_path, *rows)
    assert turns_of(result) == [chat(*pair) for pair in pairs]
    dropped = {"the white space before the completion": 2}
    if separator:
        dropped[f"the separator {json.dumps(separator)} after the prompt"] = 2
        dropped[f"the stop {json.dumps(stop)} after the completion"] = 2
    assert result.dropped == dropped


def test_suffixes_that_only_some_have_or_that_mean_something_stay(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Red?\n\n###\n\n", "completion": "yes END"},
        {"prompt": "Blue?", "completion": "no (really)"},
    ]
    result = converted(tmp_path, *rows)
    assert turns_of(result) == [chat("Red?\n\n###\n\n", "yes END"), chat("Blue?", "no (really)")]
    assert result.dropped == {}
    same = [{"prompt": f"{n}: shall I go?", "completion": f"{n} (party)"} for n in "ab"]
    assert turns_of(converted(tmp_path, *same))[0] == chat("a: shall I go?", "a (party)")


def test_prompts_and_completions_may_be_messages_already(tmp_path: Path) -> None:
    question, reply = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    assert turns_of(converted(tmp_path, {"prompt": [question], "completion": [reply]})) == [
        chat("a", "b")
    ]


def test_every_row_that_is_not_converted_is_listed_with_its_reason(tmp_path: Path) -> None:
    good = {"prompt": "a", "completion": "b", "id": 7}
    file = tmp_path / "f"
    lines = ["", json.dumps(good), "{", "[1]", '{"prompt": "a"}', '{"q": "a"}', "", '{"prompt": 5}']
    file.write_bytes("\ufeff".encode() + "\r\n".join(lines).encode() + b'\r\n{"prompt": "\xff"}')
    result = convert(file)
    assert turns_of(result) == [chat("a", "b")]
    assert result.dropped == {'the key "id"': 1}
    assert result.formats == {"prompt and completion": 3, "unknown": 4}
    reasons = [(row.line, row.reason.split(". ")[0][:44]) for row in result.left_out]
    assert reasons == [
        (3, "cannot be parsed"),
        (4, 'is not a dictionary (HINT: line starts with:'),
        (5, "message 2 needs a 'content' of text, not nul"),
        (6, "is missing key 'messages'"),
        (8, "message 1 needs a 'content' of text, not 5"),
        (9, "cannot be parsed"),
    ]  # fmt: skip


# --- ShareGPT ---


def test_sharegpt_turns_become_messages(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Hello"},
        {"from": "gpt", "value": "Hi.", "weight": 0},
        {"from": "human", "value": "Bye"},
        {"from": "gpt", "value": "Bye.", "markdown": None, "lang": "en"},
        {"from": "human", "value": "Thanks"},
    ]
    result = converted(tmp_path, {"id": "x1", "conversations": turns})
    (row,) = rows_of(result)
    assert turns_of(result) == [
        [("system", "Be brief."), *chat("Hello", "Hi."), *chat("Bye", "Bye.")],
    ]
    assert row["messages"][2]["weight"] == 0
    assert result.dropped == {
        'the key "id"': 1,
        'the key "lang" of turns': 1,
        "the last turns, to which nobody replies": 1,
    }


@pytest.mark.parametrize(
    "row",
    [
        {"system": "S", "conversations": [{"role": "user", "content": "a"},
                                          {"role": "assistant", "content": "b"}]},
        {"messages": [{"from": "system", "value": "S"}, {"from": "Human", "value": "a"},
                      {"from": "ChatGPT", "value": "b"}]},
    ],
)  # fmt: skip
def test_sharegpt_has_several_spellings(tmp_path: Path, row: dict[str, Any]) -> None:
    assert turns_of(converted(tmp_path, row)) == [[("system", "S"), *chat("a", "b")]]


@pytest.mark.parametrize(
    "turns",
    [
        [("gpt", '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>'),
         ("tool", "<tool_response>\nwet\n</tool_response>")],
        [("function_call", '{"name": "weather", "arguments": {"place": "Oslo"}}'),
         ("observation", "wet")],
    ],
)  # fmt: skip
def test_calls_of_sharegpt_are_the_apis(tmp_path: Path, turns: list[tuple[str, str]]) -> None:
    turns = [("human", "Rain?"), *turns, ("gpt", "Yes.")]
    talk = [{"from": speaker, "value": text} for speaker, text in turns]
    (row,) = rows_of(converted(tmp_path, {"conversations": talk, "tools": json.dumps([WEATHER])}))
    assert row["tools"] == TOOLS
    called, answered = row["messages"][1:3]
    assert called["tool_calls"] == [
        {
            "type": "function",
            "function": {"name": "weather", "arguments": '{"place": "Oslo"}'},
            "id": "call_0",
        }
    ]
    assert answered == {"role": "tool", "content": "wet", "tool_call_id": "call_0"}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"from": "human", "value": "a"}], "must have at least one message from the assistant"),
        ([{"from": "narrator", "value": "a"}], 'a turn must be from system, human, gpt or'),
        ([{"from": "gpt", "value": None}], "the value of a turn must be a text, not null"),
        ([{"from": "gpt", "value": "<tool_call>{</tool_call>"}],
         'a call in it must be JSON, not "{"'),
        ([{"from": "tool", "value": "a"}, {"from": "gpt", "value": "b"}],
         "message 1 answers no call that was just made"),
        (["a"], 'a turn must be an object, not "a"'),
        ([], "'messages' must be a list of at least one message"),
    ],
)  # fmt: skip
def test_invalid_conversations_are_left_out(tmp_path: Path, turns: list[Any], reason: str) -> None:
    (left,) = converted(tmp_path, {"conversations": turns}).left_out
    assert left.line == 1
    assert left.reason.startswith(reason)


# --- Alpaca, and chat lines ---


def test_alpaca_rows_become_an_exchange(tmp_path: Path) -> None:
    result = converted(
        tmp_path,
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "Below is"},
        {"instruction": "Say hi.", "input": "", "output": "Hi."},
        {"instruction": "And?", "input": None, "output": "Me.", "system": "S",
         "history": [["A?", "B."]]},
        {"instruction": "Nothing comes of it"},
    )  # fmt: skip
    assert turns_of(result) == [
        chat("Add.\n\n1 and 2", "3"),
        chat("Say hi.", "Hi."),
        [("system", "S"), *chat("A?", "B."), *chat("And?", "Me.")],
    ]
    assert result.dropped == {'the key "text"': 1}
    assert [left.line for left in result.left_out] == [4]


def test_tools_in_a_string_and_arguments_in_none_are_written_as_the_api_does(
    tmp_path: Path,
) -> None:
    given = {"place": "Oslo", "of_another_tool": None}
    called = {"role": "assistant", "tool_calls": [
        {"function": {"name": "weather", "arguments": given}}]}  # fmt: skip
    messages = [{"role": "user", "content": "Rain?"}, called, {"role": "tool", "content": "wet"}]
    messages += [{"role": "assistant", "content": "Yes."}]
    result = converted(tmp_path, {"messages": messages, "tools": json.dumps(TOOLS)})
    (row,) = rows_of(result)
    (call,) = row["messages"][1]["tool_calls"]
    assert call["function"]["arguments"] == '{"place": "Oslo"}'
    assert (call["id"], call["type"]) == ("call_0", "function")
    assert row["messages"][2]["tool_call_id"] == "call_0"
    assert result.dropped == {"arguments that are null, and none of the tool's": 1}


@pytest.mark.parametrize("older", [False, True])
def test_a_value_that_a_tool_has_may_be_null(tmp_path: Path, older: bool) -> None:
    function = {"name": "weather", "arguments": {"place": None, "of_another_tool": None}}
    called = {"function_call": function} if older else {"tool_calls": [{"function": function}]}
    answer = {"role": "function", "name": "weather"} if older else {"role": "tool"}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", **called},
        {**answer, "content": "Yes"},
        {"role": "assistant", "content": "Yes."},
    ]
    tools = (
        {"functions": [WEATHER]}
        if older
        else {"tools": [{"function": WEATHER, "type": "function"}]}
    )
    result = converted(tmp_path, {"messages": messages, **tools})
    (row,) = rows_of(result)
    message = row["messages"][1]
    function = message["function_call"] if older else message["tool_calls"][0]["function"]
    assert function["arguments"] == '{"place": null}'
    assert result.dropped == {"arguments that are null, and none of the tool's": 1}


def test_existing_ids_stay_and_new_ones_differ_from_them(tmp_path: Path) -> None:
    function = {"name": "weather", "arguments": {}}
    messages = [
        {"role": "user", "content": "Rain?"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "call_0", "function": function}, {"function": function}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "here"},
        {"role": "tool", "content": "there"},
        {"role": "assistant", "content": "Yes."},
    ]
    tools = [{"type": "function", "function": WEATHER}]
    (row,) = rows_of(converted(tmp_path, {"messages": messages, "tools": tools}))
    called = [call["id"] for call in row["messages"][1]["tool_calls"]]
    assert called == ["call_0", "call_1"]
    assert [message["tool_call_id"] for message in row["messages"][2:4]] == called


def test_text_around_calls_and_results_is_reported(tmp_path: Path) -> None:
    call = '{"name": "weather", "arguments": {"place": "here"}, "note": 1}'
    turns = [
        {"from": "human", "value": "Rain?"},
        {"from": "gpt", "value": f"<tool_call>{call}</tool_call>"},
        {"from": "tool", "value": "before <tool_response>wet</tool_response>"},
        {"from": "gpt", "value": "Yes."},
    ]
    result = converted(tmp_path, {"conversations": turns, "tools": json.dumps([WEATHER])})
    assert len(result.lines) == 1
    assert result.dropped == {'the key "note" of calls': 1, "the text around a <tool_response>": 1}


# --- lists and CSV ---


def test_a_json_list_keeps_its_line_numbers(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    rows = [{"instruction": f"a{n}", "output": "b"} for n in range(2)]
    text = json.dumps([*rows, 5, {"question": 1}], indent=1)
    file.write_text(text, encoding="utf-8-sig")
    result = convert(file)
    assert turns_of(result) == [chat("a0", "b"), chat("a1", "b")]
    assert [left.line for left in result.left_out] == [10, 11]
    one_line = tmp_path / "g.json"
    one_line.write_text(json.dumps([{"messages": [{"role": "assistant", "content": "b"}]}]))
    assert turns_of(convert(one_line)) == [[("assistant", "b")]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"a": 1},\n {"a": 2}', "breaks off in line 2, column 10"),
        (b'[{"a": 1},\n {"a": ]', "breaks off in line 2, column 8"),
        (b'[{"a": 1}\n]\n{"a": 2}', "Extra data after the list"),
        (b'[\n{"a": "\xff"}]', "is not UTF-8"),
        ("{}".encode("utf-16"), "The file is UTF-16, and must be UTF-8."),
        (b'prompt,completion\n"' + b"a" * 200_000 + b'",b\n', "The file is CSV, and breaks off"),
    ],
    ids=["cut_off", "broken", "two_lists", "latin_1", "utf_16", "huge_field"],
)
def test_a_file_without_a_certain_row_is_refused(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DatasetError, match=words):
        convert(tmp_path / "f")


def test_csv_with_named_columns_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    text = 'completion,prompt,note\r\nx,"two\nlines",1\r\n\r\ny,one,\r\nshort\r\n1,2,3,4\r\n'
    file.write_bytes("\ufeff".encode() + text.encode() + b"\xe9,b,c\r\n")
    result = convert(file)
    assert turns_of(result) == [chat("two\nlines", "x"), chat("one", "y")]
    assert result.dropped == {'the key "note"': 2}
    columns = "has more or fewer columns than the header names."
    assert result.left_out == (
        LeftOutRow(6, columns),
        LeftOutRow(7, columns),
        LeftOutRow(8, "is not UTF-8. Save the file as UTF-8."),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('prompt,completion\na,"unclosed\nx,y\n', "breaks off in line 2"),
        ('prompt,completion\n"a"x,b\n', "breaks off in line 2"),
        ("prompt,prompt,completion\na,b,c\n", 'the column "prompt" twice'),
    ],
)
def test_a_csv_that_would_lose_something_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "f.csv"
    file.write_text(text)
    with pytest.raises(DatasetError, match=message):
        convert(file)
