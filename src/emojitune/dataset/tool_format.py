"""Tools as text: how a model is told of them, how calls and what came of them are written.

One plain form for all models, because chat templates differ in theirs and many have none:

    <tool_call>{"name": "NAME", "arguments": {...}}</tool_call>

for a call, one a line where there are several, and `<tool_response>...</tool_response>` for what
came of it. All of it is ordinary text to the Renderer, which lets no text forge a special token.
Training and chat write the same: what was learned of a tool is what a chat asks for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CALL_BEGIN = "<tool_call>"
CALL_END = "</tool_call>"
SEPARATOR = "\n"

_RESULT_BEGIN = "<tool_response>\n"
_RESULT_END = "\n</tool_response>"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask to be called; `parameters` is a JSON schema.

    `strict`: calls are held to all of the schema, or the tool is refused.
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
        """As the API describes it: without parameters, it takes no arguments."""
        none = {"properties": {}, "additionalProperties": False}
        known = none if parameters is None else dict(parameters)
        kind = {"type": "object"}  # first in any case, and also where it is said to be null
        return Tool(name, kind | known | kind, description, strict)


def tools_prompt(tools: Sequence[Tool]) -> str:
    """What a system message says of the tools at hand."""
    described = [
        _json(
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
    """A call up to its arguments."""
    return f'{CALL_BEGIN}{{"name": {json.dumps(name)}, "arguments": '


def call_text(name: str, arguments: str) -> str:
    """A call in a message; `arguments` is JSON, but a client may have sent any text."""
    return f"{call_prefix(name)}{arguments}}}{CALL_END}"


def reply_text(words: str, calls: Sequence[str]) -> str:
    """What an assistant says in a message: its words, then its calls."""
    return SEPARATOR.join([*([words] if words else []), *calls])


def result_text(content: str) -> str:
    """What a tool answered."""
    return f"{_RESULT_BEGIN}{content}{_RESULT_END}"


def is_result(text: str) -> bool:
    """Whether a message is a tool's answer."""
    return text.startswith(_RESULT_BEGIN) and text.endswith(_RESULT_END)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
