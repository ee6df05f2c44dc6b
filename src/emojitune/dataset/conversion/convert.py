"""Rows in other formats -> chat lines, with a report on every row.

`formats.py` recognizes the formats, and `parse.py` decides whether a converted row can be trained
on. Writes no file.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from emojitune.dataset.conversion.affixes import Affixes
from emojitune.dataset.conversion.rows import UnreadableRow, read_rows, rejection_reason
from emojitune.dataset.formats import (
    ALPACA,
    PROMPT_COMPLETION,
    SHAREGPT,
    called_functions,
    detect_format,
    listed_calls,
)
from emojitune.dataset.rules import preview
from emojitune.dataset.strict_json import DuplicateKeys, drop_nulls, dump_row, parse_json

CHAT, UNKNOWN = "chat", "unknown"

_OTHER_KEYS = ("functions", "parallel_tool_calls")
_SPEAKERS = {
    **{"system": "system", "human": "user", "user": "user"},
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bot", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
    "function_call": "call",
}
# Tool calls and results inside a turn, as several model families write them.
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeftOutRow:
    """A row that was not converted: the line that it begins in, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """The chat lines of a file, and what happened to its rows.

    Attributes:
        formats: The number of rows in each format, by its name.
        lines: The chat lines, without line ends.
        dropped: Parts of rows that are not in the lines, each with the number of its rows.
        is_foreign: Whether the file was anything but chat lines.
    """

    formats: dict[str, int]
    lines: tuple[str, ...]
    left_out: tuple[LeftOutRow, ...]
    dropped: dict[str, int]
    is_foreign: bool


def convert(path: Path) -> ConversionResult:
    """Convert every row that can become a chat line, and report why the others cannot.

    Raises:
        DatasetError: No row of the file can be read.
        OSError: The file cannot be read.
    """
    container, rows = read_rows(path)
    converter = _Converter(Affixes.from_rows(row for _, row in rows if isinstance(row, dict)))
    lines: list[str] = []
    left_out: list[LeftOutRow] = []
    for number, row in rows:
        try:
            lines.append(converter.line(number, row))
        except _RowRejectedError as error:
            left_out.append(LeftOutRow(number, str(error)))
    is_foreign = container != "lines" or bool(converter.formats.keys() - {CHAT, UNKNOWN})
    return ConversionResult(
        dict(converter.formats), tuple(lines), tuple(left_out), dict(converter.dropped), is_foreign
    )


class _RowRejectedError(Exception):
    """The reason why a row cannot become a chat line."""


@dataclass(frozen=True, slots=True)
class _Converter:
    affixes: Affixes
    formats: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def line(self, number: int, row: object) -> str:
        """Convert a row to a chat line."""
        if not isinstance(row, dict):
            self.formats[UNKNOWN] += 1
        if isinstance(row, UnreadableRow):
            raise _RowRejectedError(row.reason)
        dropped: list[str] = []
        text, raw = dump_row(self._convert(row, dropped) if isinstance(row, dict) else row)
        reason = rejection_reason(number, raw)
        if reason is not None:
            raise _RowRejectedError(reason)
        self.dropped.update(dict.fromkeys(dropped, 1))
        return text

    def _convert(self, given: Json, dropped: list[str]) -> Json:
        """The row in the chat's format."""
        row, format = dict(given), detect_format(given)
        recognized = format is not None or "messages" in row
        self.formats[format.name if format else CHAT if recognized else UNKNOWN] += 1
        if not recognized:
            return row
        if isinstance(given, DuplicateKeys):
            dropped.append("the first value of a key that stands there twice")
        tools = _pop_tools(row)
        messages = self._messages(row, dropped)
        if all(isinstance(message, dict) for message in messages):
            _link_calls(messages, [*_as_list(tools), *_deprecated_tools(row)], dropped)
            _end_with_reply(messages, dropped)
        others = {key: row.pop(key) for key in _OTHER_KEYS if key in row}
        dropped += [f"the key {preview(key)}" for key in row]
        return {"messages": messages, **({"tools": tools} if tools else {}), **others}

    def _messages(self, row: Json, dropped: list[str]) -> list[Any]:
        format = detect_format(row)
        if format is PROMPT_COMPLETION:
            return [*_pop_system(row), *self._from_prompt(row, dropped)]
        if format is ALPACA:
            return [*_pop_system(row), *_from_alpaca(row)]
        if format is SHAREGPT:
            return [*_pop_system(row), *_from_sharegpt(row, dropped)]
        messages = row.pop("messages")
        return messages if isinstance(messages, list) else [messages]

    def _from_prompt(self, row: Json, dropped: list[str]) -> list[Any]:
        prompt, completion = row.pop("prompt", None), row.pop("completion", None)
        if isinstance(prompt, list) and isinstance(completion, list):
            return [*prompt, *completion]  # both are messages already
        if isinstance(prompt, str) and isinstance(completion, str):
            prompt = self.affixes.strip_prompt(prompt, dropped)
            completion = self.affixes.strip_completion(completion, dropped)
        return _pair(prompt, completion)


def _pair(question: object, answer: object) -> list[Json]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _pop_system(row: Json) -> list[Json]:
    prompt = row.pop("system", None)
    return [{"role": "system", "content": prompt}] if prompt else []


def _from_alpaca(row: Json) -> Iterator[Json]:
    history = row.pop("history", [])
    for pair in history if isinstance(history, list) else [history]:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise _RowRejectedError(
                "its 'history' must be a list of pairs, a question and its answer."
            )
        yield from _pair(*pair)
    parts = [part for part in (row.pop("instruction"), row.pop("input", "")) if part != ""]
    are_texts = all(isinstance(part, str) for part in parts)
    yield from _pair("\n\n".join(parts) if are_texts else parts, row.pop("output", None))


def _from_sharegpt(row: Json, dropped: list[str]) -> Iterator[Json]:
    key = next(key for key in ("conversations", "conversation", "messages") if key in row)
    for turn in row.pop(key):
        if not isinstance(turn, dict):
            raise _RowRejectedError(f"a turn must be an object, not {preview(turn)}.")
        yield from _from_turn(dict(turn), dropped)


def _from_turn(turn: Json, dropped: list[str]) -> list[Json]:
    speaker = turn.pop("from") if "from" in turn else turn.pop("role", None)
    text = turn.pop("value") if "value" in turn else turn.pop("content", None)
    role = _SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise _RowRejectedError(
            f"a turn must be from system, human, gpt or tool, not {preview(speaker)}."
        )
    if not isinstance(text, str):
        raise _RowRejectedError(f"the value of a turn must be a text, not {preview(text)}.")
    kept = {"weight": turn.pop("weight")} if role == "assistant" and "weight" in turn else {}
    dropped += [f"the key {preview(key)} of turns" for key in turn]
    if role == "tool":
        results = _RESULT.findall(text)
        if results and _RESULT.sub("", text).strip():
            dropped.append("the text around a <tool_response>")
        return [{"role": role, "content": result} for result in results or [text]]
    texts = [text] if role == "call" else _CALL.findall(text) if role == "assistant" else []
    if not texts:
        return [{"role": role, "content": text, **kept}]
    content = "" if role == "call" else _CALL.sub("", text).strip()
    calls = [call for call_text in texts for call in _parse_calls(call_text, dropped)]
    return [{"role": "assistant", "content": content or None, "tool_calls": calls, **kept}]


def _parse_calls(text: str, dropped: list[str]) -> Iterator[Json]:
    """Parse the JSON of one call, or of a list of calls."""
    parsed = _parse_json(text, "a call in it")
    for call in parsed if isinstance(parsed, list) else [parsed]:
        if not isinstance(call, dict):
            raise _RowRejectedError(f"a call must be an object with a name, not {preview(call)}.")
        function = {"name": call.get("name"), "arguments": call.get("arguments", {})}
        kept = {"id": call["id"]} if "id" in call else {}
        dropped += [
            f"the key {preview(key)} of calls" for key in call.keys() - {"name", "arguments", "id"}
        ]
        yield {**kept, "type": "function", "function": function}


def _pop_tools(row: Json) -> Any:
    """Remove the tools from a row; returns them in the API's form, where it has any."""
    tools = row.pop("tools", None)
    if isinstance(tools, str) and tools.strip():
        tools = drop_nulls(_parse_json(tools, "'tools' in a string"))
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool
        else tool
        for tool in tools
    ]


def _deprecated_tools(row: Json) -> list[Json]:
    """The functions of a row in the API's deprecated form, as tools."""
    return [{"function": function} for function in _as_list(row.get("functions"))]


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _parse_json(text: str, what: str) -> object:
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        raise _RowRejectedError(f"{what} must be JSON, not {preview(text)}.") from None


def _link_calls(messages: Sequence[Json], tools: Sequence[Any], dropped: list[str]) -> None:
    """Give each call an id and its arguments as text, and each result the id of its call."""
    taken = {call.get("id") for message in messages for call in listed_calls(message)}
    new_ids = (id for number in count() if (id := f"call_{number}") not in taken)
    waiting: list[Any] = []
    for message in messages:
        if message.get("role") == "tool":
            if "tool_call_id" not in message and waiting:
                message["tool_call_id"] = waiting[0]
            if message.get("tool_call_id") in waiting:
                waiting.remove(message["tool_call_id"])
            continue
        for function in called_functions(message):
            _serialize_arguments(function, tools, dropped)
        calls = listed_calls(message)
        for call in calls:
            if "id" not in call:
                call["id"] = next(new_ids)
            call.setdefault("type", "function")
        waiting = [call["id"] for call in calls]


def _serialize_arguments(function: Json, tools: Sequence[Any], dropped: list[str]) -> None:
    """Write arguments as JSON in a string, without nulls of parameters that the tool lacks."""
    arguments = function.get("arguments")
    if not isinstance(arguments, dict):
        return
    parameters = _parameters(function.get("name"), tools)
    kept = {
        key: value
        for key, value in arguments.items()
        if value is not None or parameters is None or key in parameters
    }
    if len(kept) < len(arguments):
        dropped.append("arguments that are null, and none of the tool's")
    function["arguments"] = json.dumps(kept, ensure_ascii=False)


def _parameters(name: object, tools: Sequence[Any]) -> set[str] | None:
    """The parameters of a tool by its name; None if the row does not list it."""
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and function.get("name") == name:
            schema = function.get("parameters")
            properties = schema.get("properties") if isinstance(schema, dict) else None
            return set(properties) if isinstance(properties, dict) else set()
    return None


def _end_with_reply(messages: list[Json], dropped: list[str]) -> None:
    if any(message.get("role") == "assistant" for message in messages):
        while messages[-1].get("role") != "assistant":
            messages.pop()
            dropped.append("the last turns, to which nobody replies")
