from collections.abc import Iterable
from itertools import pairwise

import pytest

from emojitune.dataset.example import Message
from emojitune.dataset.tool_format import Tool, call_text, reply_text
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.tool_calls import ToolCallParser, split_at_call, with_format_notes

TOOL = Tool("weather", {"type": "object", "properties": {}}, "Tells the weather.")


def parsed(pieces: Iterable[str]) -> list[tuple[str, str]]:
    """Names and arguments of the calls in a text that comes in these pieces."""
    parser = ToolCallParser()
    calls: list[tuple[str, str]] = []
    for piece in pieces:
        for delta in parser.feed(piece):
            if delta.name is not None:
                assert (delta.index, delta.arguments) == (len(calls), "")
                calls.append((delta.name, ""))
            else:
                name, arguments = calls[delta.index]
                calls[delta.index] = (name, arguments + delta.arguments)
    return calls


TRICKY = '{"a": "}</tool_call>\\"{", "b": [{"c": {}}]}'


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_calls_are_parsed_as_they_were_written_in_pieces_of_any_size(size: int) -> None:
    written = call_text("f", TRICKY) + "\n" + call_text("g", "{}")
    pieces = [written[at : at + size] for at in range(0, len(written), size)]
    assert parsed(pieces) == [("f", TRICKY), ("g", "{}")]


def test_a_call_is_parsed_as_far_as_it_goes() -> None:
    written = call_text("f", '{"a": [1, "x"]}')
    seen = [parsed([written[:size]]) for size in range(len(written) + 1)]
    arguments = [calls[0][1] for calls in seen if calls]
    assert arguments[0] == ""
    assert arguments[-1] == '{"a": [1, "x"]}'
    assert all(later.startswith(earlier) for earlier, later in pairwise(arguments))


def test_words_may_stand_before_calls() -> None:
    call = call_text("f", "{}")
    calls = call + "\n" + call
    text = reply_text("Let me look.\nOne moment.", [call, call])
    assert split_at_call(text) == ("Let me look.\nOne moment.", calls)
    assert split_at_call(reply_text("", [call])) == ("", call)
    assert split_at_call("No <tool> here.\n") == ("No <tool> here.\n", "")
    assert parsed([calls]) == [("f", "{}"), ("f", "{}")]


def test_tools_are_described_in_the_system_message() -> None:
    conversation = [Message("developer", "Be brief."), Message("user", "hi")]
    first, *others = with_format_notes(conversation, None, ToolUse((TOOL,)))
    assert first.role == "developer"
    assert first.content.startswith("Be brief.\n\n")
    assert '"description": "Tells the weather."' in first.content
    assert others == conversation[1:]


def test_a_conversation_without_a_system_message_gets_one() -> None:
    [system, user] = with_format_notes([Message("user", "hi")], {"type": "object"}, None)
    assert (system.role, user.content) == ("system", "hi")
    assert '{"type": "object"}' in system.content


def test_without_tools_and_schema_nothing_changes() -> None:
    assert with_format_notes([Message("user", "hi")], None, None) == [Message("user", "hi")]
