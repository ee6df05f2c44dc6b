"""Tools in a chat: what the model is told of them, and how its calls are read back.

How both are written is the business of `dataset/tool_format.py`: as they were trained.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.example import Message, with_notes
from emojitune.dataset.tool_format import CALL_BEGIN, CALL_END, SEPARATOR, tools_note
from emojitune.inference.types import ToolUse

_HEAD = re.compile(CALL_BEGIN + r'\{"name": "([a-zA-Z0-9_-]+)", "arguments": ')


@dataclass(frozen=True, slots=True)
class ParsedCall:
    """A call as far as it is written."""

    name: str
    arguments: str


def text_before_calls(text: str) -> str:
    """What a reply says before its first call: all of it where there is none."""
    words, begun, _ = text.partition(CALL_BEGIN)
    return words.removesuffix(SEPARATOR) if begun else words


def parse_calls(text: str) -> list[ParsedCall]:
    """The calls of a reply, the last of them as far as it goes."""
    calls, at = [], max(0, text.find(CALL_BEGIN))
    while head := _HEAD.match(text, at):
        end = _object_end(text, head.end())
        calls.append(ParsedCall(head[1], text[head.end() : end]))
        at = end + len("}" + CALL_END + SEPARATOR)
    return calls


def with_format_notes(
    messages: Sequence[Message], schema: Mapping[str, Any] | None, use: ToolUse | None
) -> list[Message]:
    """The conversation with what the model must know of tools and schema in its system message."""
    notes = [*([_schema_note(schema)] if schema else []), *([tools_note(use.tools)] if use else [])]
    return list(with_notes(messages, notes))


def _schema_note(schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema, ensure_ascii=False)
    return f"Answer with JSON that fits this JSON schema:\n{text}"


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
