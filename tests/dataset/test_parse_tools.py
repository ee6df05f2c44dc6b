"""Tools in a training file: invalid ones are refused, and models see the others as text."""

import json
from typing import Any

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.parse import parse_line
from emojitune.dataset.rules import Issue
from emojitune.dataset.statistics import closed_vocabulary

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
}
TOOLS = [{"type": "function", "function": WEATHER}]
ASKED = {"role": "user", "content": "Rain in Oslo?"}
ARGUMENTS = '{"place":"Oslo"}'
CALL = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "a", "content": "wet"}
SAID = {"role": "assistant", "content": "Take an umbrella."}
WRITTEN = '<tool_call>{"name": "weather", "arguments": {"place": "Oslo"}}</tool_call>'


def parse(*messages: Any, **row: Any) -> tuple[TrainingExample | None, list[str]]:
    issues: list[Issue] = []
    line = json.dumps({"messages": messages, **row}).encode()
    return parse_line(1, line, issues), [issue.code for issue in issues]


def test_calls_and_results_become_text_and_tools_a_prompt() -> None:
    example, codes = parse(ASKED, {**CALLED, "weight": 0}, ANSWERED, SAID, tools=TOOLS)
    assert codes == []
    assert example is not None
    assert example.messages == (
        Message("user", "Rain in Oslo?"),
        Message("assistant", WRITTEN, 0),
        Message("user", "<tool_response>\nwet\n</tool_response>"),
        Message("assistant", "Take an umbrella."),
    )
    system, *others = example.conversation
    assert system.role == "system"
    assert '"description": "The weather of a place."' in system.content
    assert tuple(others) == example.messages
    assert example.question == "Rain in Oslo?"
    assert parse(*json.loads(example.to_json())["messages"])[0] == TrainingExample(
        example.conversation
    )


def test_a_system_message_keeps_its_text_before_the_tools() -> None:
    example, _ = parse({"role": "system", "content": "Be brief."}, ASKED, SAID, tools=TOOLS)
    assert example is not None
    assert example.conversation[0].content.startswith("Be brief.\n\nYou can call these tools:\n{")
    assert len(example.conversation) == 3


def test_the_deprecated_form_means_the_same() -> None:
    called = {"role": "assistant", "content": None, "function_call": CALL["function"]}
    answered = {"role": "function", "name": "weather", "content": "wet"}
    older = parse(ASKED, called, answered, SAID, functions=[WEATHER])
    assert older == parse(ASKED, CALLED, ANSWERED, SAID, tools=TOOLS, parallel_tool_calls=False)


def test_several_calls_stand_a_line_each_and_may_be_answered_in_any_order() -> None:
    calls = [CALL, {**CALL, "id": "b"}]
    answers = [{**ANSWERED, "tool_call_id": id} for id in ("b", "a")]
    example, codes = parse(ASKED, {**CALLED, "tool_calls": calls}, *answers, SAID, tools=TOOLS)
    assert codes == []
    assert example is not None
    assert example.messages[1].content == f"{WRITTEN}\n{WRITTEN}"


def test_calls_are_no_closed_vocabulary() -> None:
    example, _ = parse(ASKED, CALLED, tools=TOOLS)
    assert example is not None
    assert closed_vocabulary([example] * 4) == ()


def function(**changed: Any) -> list[Any]:
    return [{"type": "function", "function": {**WEATHER, **changed}}]


@pytest.mark.parametrize(
    "row",
    [
        {"tools": []},
        {"tools": {}},
        {"tools": TOOLS * 2},
        {"tools": [WEATHER]},
        {"tools": ["weather"]},
        {"tools": [{"type": "custom", "custom": {"name": "weather"}}]},
        {"tools": function(name="the weather")},
        {"tools": function(name=None)},
        {"tools": function(description=["a"])},
        {"tools": function(parameters="place")},
        {"tools": function(parameters={"type": "string"})},
        {"tools": [{"type": "function", "function": {"name": f"t{n}"}} for n in range(129)]},
        {"functions": TOOLS},
        {"tools": TOOLS, "parallel_tool_calls": "no"},
    ],
)  # fmt: skip
def test_invalid_tools_are_refused(row: dict[str, Any]) -> None:
    assert parse(ASKED, SAID, **row) == (None, ["invalid_tools"])


@pytest.mark.parametrize(
    "call",
    [
        "weather",
        {**CALL, "id": 7},
        {**CALL, "type": "custom"},
        {"id": "a", "type": "function"},
        {**CALL, "function": {"name": "the weather", "arguments": "{}"}},
        {**CALL, "function": {"name": "weather"}},
        {**CALL, "function": {"name": "weather", "arguments": ["Oslo"]}},
        {**CALL, "function": {"name": "weather", "arguments": "Oslo"}},
        {**CALL, "function": {"name": "weather", "arguments": "[1]"}},
        {**CALL, "function": {"name": "weather", "arguments": '{"a": NaN}'}},
        {**CALL, "function": {"name": "weather", "arguments": '{"a": ' + "[" * 100_000}},
    ],
)  # fmt: skip
def test_invalid_calls_are_refused(call: Any) -> None:
    refused = parse(ASKED, {**CALLED, "tool_calls": [call]}, ANSWERED, SAID, tools=TOOLS)
    assert refused == (None, ["invalid_tool_call"])


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([ASKED, {**CALLED, "tool_calls": []}], "invalid_tool_call"),
        ([ASKED, {**CALLED, "tool_calls": CALL}], "invalid_tool_call"),
        ([ASKED, {**CALLED, "tool_calls": None}], "invalid_content"),
        ([ASKED, CALLED, SAID], "unanswered_tool_call"),
        ([ASKED, CALLED, ASKED, SAID], "unanswered_tool_call"),
        ([ASKED, CALLED, ANSWERED, {**ANSWERED, "tool_call_id": "b"}, SAID],
         "unexpected_tool_message"),
        ([ASKED, CALLED, {**ANSWERED, "tool_call_id": ["a"]}, SAID],
         "unexpected_tool_message unanswered_tool_call"),
        ([ASKED, ANSWERED, SAID], "unexpected_tool_message"),
        ([ASKED, CALLED, {**ANSWERED, "content": None}, SAID], "invalid_content"),
        ([ASKED, CALLED, ANSWERED], "last_not_assistant"),
        ([{**ASKED, "tool_calls": [CALL]}, SAID], "extra_key"),
        ([{**ASKED, "tool_calls": ["a"]}, SAID], "extra_key"),
        ([{**ASKED, "tool_call_id": "a"}, SAID], "extra_key"),
    ],
)  # fmt: skip
def test_calls_and_results_out_of_order_are_refused(messages: list[Any], code: str) -> None:
    assert parse(*messages, tools=TOOLS) == (None, code.split())


@pytest.mark.parametrize(
    ("messages", "tools", "code"),
    [
        ([ASKED, CALLED], None, "unlisted_tool"),
        ([ASKED, {**CALLED, "content": "One moment."}], TOOLS, "words_beside_call"),
    ],
)
def test_doubtful_lines_are_warnings(messages: list[Any], tools: Any, code: str) -> None:
    example, codes = parse(*messages, **({"tools": tools} if tools else {}))
    assert example is not None
    assert codes == [code]


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        ([ASKED, SAID], function(description="\ud83d")),
        (
            [
                ASKED,
                {
                    **CALLED,
                    "tool_calls": [
                        {**CALL, "function": {"name": "weather", "arguments": r'{"a": "\ud83d"}'}}
                    ],
                },
            ],
            TOOLS,
        ),
    ],
)
def test_a_lone_surrogate_is_refused(messages: list[Any], tools: Any) -> None:
    assert parse(*messages, tools=tools) == (None, ["lone_surrogate"])
