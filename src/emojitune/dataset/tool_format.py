"""The text form of tools, tool calls and their results: the same in training and in chat.

One form for all models, because chat templates differ in theirs and many have none:

    <tool_call>{"name": "NAME", "arguments": {...}}</tool_call>

for a call, one on each line where there are several, and `<tool_response>...</tool_response>` for
its result. All of it is ordinary text to the Renderer, which lets no text forge a special token.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CALL_BEGIN = "<tool_call>"
CALL_END = "</tool_call>"
SEPARATOR = "\n"

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_RESULT_BEGIN = "<tool_response>\n"
_RESULT_END = "\n</tool_response>"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON schema.

    `strict`: calls follow all of the schema, or the tool is refused.
    """

    name: str
    parameters: Mapping[str, Any]
    description: str | None = None
    strict: bool = False

    @staticmethod
    def from_api(
        name: str,
        parameters: Mapping[str, Any] | None,
        description: str | None,
        strict: bool = False,
    ) -> "Tool":
        """Build a tool from the API's fields; one without parameters takes no arguments."""
        none = {"properties": {}, "additionalProperties": False}
        schema = none if parameters is None else dict(parameters)
        kind = {"type": "object"}  # the first key in any case, and also where it is given as null
        return Tool(name, kind | schema | kind, description, strict)


def tools_prompt(tools: Sequence[Tool]) -> str:
    """The part of a system message that describes the tools."""
    described = [
        write_json(
            {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "parameters": tool.parameters,
            }
        )
        for tool in tools
    ]
    call = call_text("NAME", "{...}")
    return "\n".join(["You can call these tools:", *described, "To call one, answer only:", call])


def call_prefix(name: str) -> str:
    """The text of a call up to its arguments."""
    return f'{CALL_BEGIN}{{"name": {json.dumps(name)}, "arguments": '


def call_text(name: str, arguments: str) -> str:
    """The text of a call; `arguments` should be JSON, but a client may have sent anything."""
    return f"{call_prefix(name)}{arguments}}}{CALL_END}"


def reply_text(content: str, calls: Sequence[str]) -> str:
    """The text of an assistant message: its content, then its calls."""
    return SEPARATOR.join([*([content] if content else []), *calls])


def result_text(content: str) -> str:
    """The text of a tool's result."""
    return f"{_RESULT_BEGIN}{content}{_RESULT_END}"


def is_tool_result(text: str) -> bool:
    """Whether the text of a message is a tool's result."""
    return text.startswith(_RESULT_BEGIN) and text.endswith(_RESULT_END)


def write_json(value: Mapping[str, Any]) -> str:
    """A schema as JSON, written in pieces: `dumps` would hold Python's lock until it is done."""
    return "".join(_ENCODER.iterencode(value))
