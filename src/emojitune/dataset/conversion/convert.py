"""Rows in other people's formats -> chat lines, with an account of every row.

`formats.py` recognizes them, and the rules of a line decide whether what became of a row can be
trained on. Writes nothing.
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
from emojitune.dataset.conversion.rows import Unreadable, read_rows, reason
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
# Calls and their results within a turn, as several families of models write them.
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)

Said = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeftOutRow:
    """A row of which no chat line was made, by the line that it begins in."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConversionResult:
    """What was made of a file.

    Attributes:
        formats: How many rows are in which format, by its name.
        lines: The chat lines, without their ends.
        gone: What of the rows is not in the lines, and in how many rows it was.
        needed: Whether the file was anything else than chat lines.
    """

    formats: dict[str, int]
    lines: tuple[str, ...]
    left_out: tuple[LeftOutRow, ...]
    dropped: dict[str, int]
    is_foreign: bool


def convert(path: Path) -> ConversionResult:
    """Chat lines of every row that can be one, and why the others cannot.

    Raises:
        DatasetError: No row of the file can be read.
        OSError: As of any file.
    """
    container, rows = read_rows(path)
    making = _Conversion(Affixes.of(row for _, row in rows if isinstance(row, dict)))
    lines: list[str] = []
    left_out: list[LeftOutRow] = []
    for number, row in rows:
        try:
            lines.append(making.line(number, row))
        except _Refused as why:
            left_out.append(LeftOutRow(number, str(why)))
    is_foreign = container != "lines" or bool(making.formats.keys() - {CHAT, UNKNOWN})
    return ConversionResult(
        dict(making.formats), tuple(lines), tuple(left_out), dict(making.dropped), is_foreign
    )


class _Refused(Exception):
    """Why no chat line can be made of a row."""


@dataclass(frozen=True, slots=True)
class _Conversion:
    affixes: Affixes
    formats: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def line(self, number: int, row: object) -> str:
        """The chat line of a row."""
        if not isinstance(row, dict):
            self.formats[UNKNOWN] += 1
        if isinstance(row, Unreadable):
            raise _Refused(row.reason)
        dropped: list[str] = []
        text, raw = dump_row(self._chat(row, dropped) if isinstance(row, dict) else row)
        why = reason(number, raw)
        if why is not None:
            raise _Refused(why)
        self.dropped.update(dict.fromkeys(dropped, 1))
        return text

    def _chat(self, given: Said, dropped: list[str]) -> Said:
        """The row as a chat has it."""
        row, found = dict(given), detect_format(given)
        known = found is not None or "messages" in row
        self.formats[found.name if found else CHAT if known else UNKNOWN] += 1
        if not known:
            return row
        if isinstance(given, DuplicateKeys):
            dropped.append("the first value of a key that stands there twice")
        tools = _tools(row)
        messages = self._messages(row, dropped)
        if all(isinstance(message, dict) for message in messages):
            _link(messages, [*_listed(tools), *_functions(row)], dropped)
            _end_with_a_reply(messages, dropped)
        others = {key: row.pop(key) for key in _OTHER_KEYS if key in row}
        dropped += [f"the key {preview(key)}" for key in row]
        return {"messages": messages, **({"tools": tools} if tools else {}), **others}

    def _messages(self, row: Said, dropped: list[str]) -> list[Any]:
        found = detect_format(row)
        if found is PROMPT_COMPLETION:
            return [*_system(row), *self._of_prompt(row, dropped)]
        if found is ALPACA:
            return [*_system(row), *_of_instruction(row)]
        if found is SHAREGPT:
            return [*_system(row), *_of_turns(row, dropped)]
        messages = row.pop("messages")
        return messages if isinstance(messages, list) else [messages]

    def _of_prompt(self, row: Said, dropped: list[str]) -> list[Any]:
        prompt, completion = row.pop("prompt", None), row.pop("completion", None)
        if isinstance(prompt, list) and isinstance(completion, list):
            return [*prompt, *completion]  # both are messages already
        if isinstance(prompt, str) and isinstance(completion, str):
            prompt = self.affixes.prompt(prompt, dropped)
            completion = self.affixes.completion(completion, dropped)
        return _exchange(prompt, completion)


def _exchange(asked: object, replied: object) -> list[Said]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": replied}]


def _system(row: Said) -> list[Said]:
    said = row.pop("system", None)
    return [{"role": "system", "content": said}] if said else []


def _of_instruction(row: Said) -> Iterator[Said]:
    history = row.pop("history", [])
    for pair in history if isinstance(history, list) else [history]:
        if not (isinstance(pair, list) and len(pair) == 2):
            raise _Refused("its 'history' must be a list of pairs, a question and its answer.")
        yield from _exchange(*pair)
    parts = [one for one in (row.pop("instruction"), row.pop("input", "")) if one != ""]
    texts = all(isinstance(one, str) for one in parts)
    yield from _exchange("\n\n".join(parts) if texts else parts, row.pop("output", None))


def _of_turns(row: Said, dropped: list[str]) -> Iterator[Said]:
    key = next(one for one in ("conversations", "conversation", "messages") if one in row)
    for turn in row.pop(key):
        if not isinstance(turn, dict):
            raise _Refused(f"a turn must be an object, not {preview(turn)}.")
        yield from _of_turn(dict(turn), dropped)


def _of_turn(turn: Said, dropped: list[str]) -> list[Said]:
    speaker = turn.pop("from") if "from" in turn else turn.pop("role", None)
    text = turn.pop("value") if "value" in turn else turn.pop("content", None)
    role = _SPEAKERS.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        raise _Refused(f"a turn must be from system, human, gpt or tool, not {preview(speaker)}.")
    if not isinstance(text, str):
        raise _Refused(f"the value of a turn must be a text, not {preview(text)}.")
    kept = {"weight": turn.pop("weight")} if role == "assistant" and "weight" in turn else {}
    dropped += [f"the key {preview(key)} of turns" for key in turn]
    if role == "tool":
        results = _RESULT.findall(text)
        if results and _RESULT.sub("", text).strip():
            dropped.append("the text around a <tool_response>")
        return [{"role": role, "content": result} for result in results or [text]]
    called = [text] if role == "call" else _CALL.findall(text) if role == "assistant" else []
    if not called:
        return [{"role": role, "content": text, **kept}]
    words = "" if role == "call" else _CALL.sub("", text).strip()
    calls = [call for one in called for call in _calls(one, dropped)]
    return [{"role": "assistant", "content": words or None, "tool_calls": calls, **kept}]


def _calls(text: str, dropped: list[str]) -> Iterator[Said]:
    """The calls that a text holds as JSON: one, or a list."""
    found = _json(text, "a call in it")
    for call in found if isinstance(found, list) else [found]:
        if not isinstance(call, dict):
            raise _Refused(f"a call must be an object with a name, not {preview(call)}.")
        function = {"name": call.get("name"), "arguments": call.get("arguments", {})}
        kept = {"id": call["id"]} if "id" in call else {}
        dropped += [
            f"the key {preview(key)} of calls" for key in call.keys() - {"name", "arguments", "id"}
        ]
        yield {**kept, "type": "function", "function": function}


def _tools(row: Said) -> Any:
    """The tools of a row as the API lists them; nothing where there are none."""
    tools = row.pop("tools", None)
    if isinstance(tools, str) and tools.strip():
        tools = drop_nulls(_json(tools, "'tools' in a string"))
    if not isinstance(tools, list):
        return tools
    return [
        {"type": "function", "function": tool}
        if isinstance(tool, dict) and "name" in tool
        else tool
        for tool in tools
    ]


def _functions(row: Said) -> list[Said]:
    """The functions of the API's older form, as tools."""
    return [{"function": one} for one in _listed(row.get("functions"))]


def _listed(found: object) -> list[Any]:
    return found if isinstance(found, list) else []


def _json(text: str, what: str) -> object:
    try:
        return parse_json(text)
    except (ValueError, RecursionError):
        raise _Refused(f"{what} must be JSON, not {preview(text)}.") from None


def _link(messages: Sequence[Said], tools: Sequence[Any], dropped: list[str]) -> None:
    """Give each call an id and its arguments as text, and each answer the id of its call."""
    taken = {call.get("id") for message in messages for call in listed_calls(message)}
    fresh = (name for number in count() if (name := f"call_{number}") not in taken)
    waiting: list[Any] = []
    for message in messages:
        if message.get("role") == "tool":
            if "tool_call_id" not in message and waiting:
                message["tool_call_id"] = waiting[0]
            if message.get("tool_call_id") in waiting:
                waiting.remove(message["tool_call_id"])
            continue
        for function in called_functions(message):
            _write_arguments(function, tools, dropped)
        calls = listed_calls(message)
        for call in calls:
            if "id" not in call:
                call["id"] = next(fresh)
            call.setdefault("type", "function")
        waiting = [call["id"] for call in calls]


def _write_arguments(function: Said, tools: Sequence[Any], dropped: list[str]) -> None:
    """Arguments as JSON in a string; null is no value of one that the tool does not have."""
    arguments = function.get("arguments")
    if not isinstance(arguments, dict):
        return
    known = _parameters(function.get("name"), tools)
    kept = {
        key: value
        for key, value in arguments.items()
        if value is not None or known is None or key in known
    }
    if len(kept) < len(arguments):
        dropped.append("arguments that are null, and none of the tool's")
    function["arguments"] = json.dumps(kept, ensure_ascii=False)


def _parameters(name: object, tools: Sequence[Any]) -> set[str] | None:
    """The parameters of the tool with that name, where the row lists it."""
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and function.get("name") == name:
            schema = function.get("parameters")
            properties = schema.get("properties") if isinstance(schema, dict) else None
            return set(properties) if isinstance(properties, dict) else set()
    return None


def _end_with_a_reply(messages: list[Said], dropped: list[str]) -> None:
    if any(message.get("role") == "assistant" for message in messages):
        while messages[-1].get("role") != "assistant":
            messages.pop()
            dropped.append("the last turns, to which nobody replies")
