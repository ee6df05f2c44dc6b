"""Tools in a chat: their description in the prompt, and the calls in a reply.

`dataset/tool_format.py` defines the format of both, as models are trained with it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emojitune.dataset.example import Message, add_to_system
from emojitune.dataset.tool_format import CALL_BEGIN, CALL_END, SEPARATOR, tools_prompt, write_json
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.types import ToolCallDelta

_HEAD = re.compile(CALL_BEGIN + r'\{"name": "([a-zA-Z0-9_-]+)", "arguments": ')
_TAIL_AND_HEAD = re.compile(re.escape("}" + CALL_END + SEPARATOR) + _HEAD.pattern)


def split_at_call(text: str) -> tuple[str, str]:
    """The words of a reply, and its text from the first call on; empty where it has none."""
    words, call, after = text.partition(CALL_BEGIN)
    return (words.removesuffix(SEPARATOR), call + after) if call else (words, "")


class ToolCallParser:
    """Parses the calls of one reply while they are generated, each character once."""

    def __init__(self) -> None:
        self._text = ""  # an incomplete head
        self._arguments: _JsonObject | None = None  # of the current call
        self._calls = 0

    def feed(self, text: str) -> Iterator[ToolCallDelta]:
        """Take more of the text from the first call on; yield the parts of calls in it."""
        text = self._text + text
        while text:
            if self._arguments is None:
                head = (_TAIL_AND_HEAD if self._calls else _HEAD).match(text)
                if head is None:
                    break
                yield ToolCallDelta(self._calls, "", head[1])
                self._arguments = _JsonObject()
                self._calls += 1
                text = text[head.end() :]
            size = self._arguments.take(text)
            if size:
                yield ToolCallDelta(self._calls - 1, text[:size])
            text = text[size:]
            if self._arguments.complete:
                self._arguments = None
        self._text = text


def with_format_notes(
    messages: Sequence[Message], schema: Mapping[str, Any] | None, use: ToolUse | None
) -> list[Message]:
    """The conversation, with tools and schema described in its system message."""
    notes = [
        *([_schema_note(schema)] if schema else []),
        *([tools_prompt(use.tools)] if use else []),
    ]
    return list(add_to_system(messages, notes))


def _schema_note(schema: Mapping[str, Any]) -> str:
    return f"Answer with JSON that fits this JSON schema:\n{write_json(schema)}"


class _JsonObject:
    """Finds the end of a JSON object in text that comes piece by piece."""

    def __init__(self) -> None:
        self.complete = False
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def take(self, text: str) -> int:
        """How many characters at the beginning of `text` belong to the object."""
        for at, sign in enumerate(text):
            if self._closes(sign):
                self.complete = True
                return at + 1
        return len(text)

    def _closes(self, sign: str) -> bool:
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = sign == "\\"
            self._quoted = sign != '"'
        elif sign == '"':
            self._quoted = True
        elif sign in "{[":
            self._depth += 1
        elif sign in "}]":
            self._depth -= 1
            return self._depth == 0
        return False
