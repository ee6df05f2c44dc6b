"""Tools as text: how they are described to a model, how its calls are written and read back.

One plain form for all models, because chat templates differ in theirs and many have none:

    <tool_call>{"name": "NAME", "arguments": {...}}</tool_call>

for a call, one a line where there are several, and `<tool_response>...</tool_response>` for what
came of it. All of it is ordinary text to the Renderer, which lets no text forge a special token.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emojitune.chat.reply import ToolUse
from emojitune.dataset.example import Message

CALL_BEGIN = "<tool_call>"
CALL_END = "</tool_call>"
SEPARATOR = "\n"

_HEAD = re.compile(CALL_BEGIN + r'\{"name": "([a-zA-Z0-9_-]+)", "arguments": ')


@dataclass(frozen=True, slots=True)
class ReadCall:
    """A call as far as it is written."""

    name: str
    arguments: str


def call_head(name: str) -> str:
    """A call up to its arguments."""
    return f'{CALL_BEGIN}{{"name": {json.dumps(name)}, "arguments": '


def call_text(name: str, arguments: str) -> str:
    """A call in an earlier message; `arguments` is JSON, but a client may have sent any text."""
    return f"{call_head(name)}{arguments}}}{CALL_END}"


def spoken(words: str, calls: Sequence[str]) -> str:
    """What an assistant said in an earlier message: its words, then its calls."""
    return SEPARATOR.join([*([words] if words else []), *calls])


def result_text(content: str) -> str:
    """What a tool answered."""
    return f"<tool_response>\n{content}\n</tool_response>"


def may_become_call(text: str) -> bool:
    """Whether a reply that begins so is a call, or may still turn out to be one."""
    return text.startswith(CALL_BEGIN) or CALL_BEGIN.startswith(text)


def read_calls(text: str) -> list[ReadCall]:
    """The calls of a reply, the last of them as far as it goes."""
    calls, at = [], 0
    while head := _HEAD.match(text, at):
        end = _object_end(text, head.end())
        calls.append(ReadCall(head[1], text[head.end() : end]))
        at = end + len("}" + CALL_END + SEPARATOR)
    return calls


def described(
    messages: Sequence[Message], schema: Mapping[str, Any] | None, use: ToolUse | None
) -> list[Message]:
    """The conversation with what the model must know of tools and schema in its system message."""
    notes = [*([_schema_note(schema)] if schema else []), *([_tools_note(use)] if use else [])]
    if not notes:
        return list(messages)
    if messages and messages[0].role in ("system", "developer"):
        first, *rest = messages
        return [replace(first, content="\n\n".join([first.content, *notes])), *rest]
    return [Message("system", "\n\n".join(notes)), *messages]


def _schema_note(schema: Mapping[str, Any]) -> str:
    return f"Answer with JSON that fits this JSON schema:\n{_json(schema)}"


def _tools_note(use: ToolUse) -> str:
    tools = [
        _json(
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": tool.parameters,
            }
        )
        for tool in use.tools
    ]
    call = call_text("NAME", "{...}")
    return "\n".join(["You can call these tools:", *tools, "To call one, answer only:", call])


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _object_end(text: str, start: int) -> int:
    """Where the JSON object that begins at `start` ends; the end of the text if it does not."""
    depth, quoted, escaped = 0, False, False
    for at in range(start, len(text)):
        sign = text[at]
        if quoted:
            if escaped:
                escaped = False
            elif sign == "\\":
                escaped = True
            elif sign == '"':
                quoted = False
        elif sign == '"':
            quoted = True
        elif sign in "{[":
            depth += 1
        elif sign in "}]":
            depth -= 1
            if depth == 0:
                return at + 1
    return len(text)
