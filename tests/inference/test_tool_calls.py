from itertools import pairwise

from emojitune.dataset.example import Message
from emojitune.dataset.tool_format import Tool, call_text, spoken
from emojitune.inference.tool_calls import parse_calls, text_before_calls, with_format_notes
from emojitune.inference.types import ToolUse

TOOL = Tool("weather", {"type": "object", "properties": {}}, "Tells the weather.")


def test_calls_are_read_back_as_they_were_written() -> None:
    tricky = '{"a": "}</tool_call>\\"{", "b": [{"c": {}}]}'
    written = call_text("f", tricky) + "\n" + call_text("g", "{}")
    assert [(call.name, call.arguments) for call in parse_calls(written)] == [
        ("f", tricky),
        ("g", "{}"),
    ]


def test_a_call_is_read_as_far_as_it_goes() -> None:
    whole = call_text("f", '{"a": [1, "x"]}')
    seen = [parse_calls(whole[:size]) for size in range(len(whole) + 1)]
    arguments = [calls[0].arguments for calls in seen if calls]
    assert arguments[0] == ""
    assert arguments[-1] == '{"a": [1, "x"]}'
    assert all(later.startswith(earlier) for earlier, later in pairwise(arguments))


def test_words_may_stand_before_calls() -> None:
    call = call_text("f", "{}")
    assert (
        text_before_calls(spoken("Let me look.\nOne moment.", [call, call]))
        == "Let me look.\nOne moment."
    )
    assert text_before_calls(spoken("", [call])) == ""
    assert text_before_calls("No <tool> here.\n") == "No <tool> here.\n"
    assert [one.name for one in parse_calls(spoken("Let me look.", [call, call]))] == ["f", "f"]
    assert parse_calls("No call.") == []


def test_tools_are_described_behind_the_system_message() -> None:
    asked = [Message("developer", "Be brief."), Message("user", "hi")]
    first, *rest = with_format_notes(asked, None, ToolUse((TOOL,)))
    assert first.role == "developer"
    assert first.content.startswith("Be brief.\n\n")
    assert '"description": "Tells the weather."' in first.content
    assert rest == asked[1:]


def test_a_conversation_without_a_system_message_gets_one() -> None:
    [system, user] = with_format_notes([Message("user", "hi")], {"type": "object"}, None)
    assert (system.role, user.content) == ("system", "hi")
    assert '{"type": "object"}' in system.content


def test_without_tools_and_schema_nothing_changes() -> None:
    assert with_format_notes([Message("user", "hi")], None, None) == [Message("user", "hi")]
