"""What a line says of tools: those at hand, calls of them, and what came of these.

Knows both forms of the API: `tools` and `tool_calls`, and the deprecated `functions` and
`function_call`. As `line.py`, looks at one line alone, and at its form.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from emojitune.dataset.rules import preview
from emojitune.dataset.strict_json import is_encodable, parse_json
from emojitune.dataset.tool_format import Tool, call_text, tools_prompt
from emojitune.dataset.tool_order import PendingCalls

KEYS = {"tools", "parallel_tool_calls", "functions"}
CALL_KEYS = {"tool_calls", "function_call"}
MESSAGE_KEYS = {"tool_call_id"} | CALL_KEYS
ROLES = ("tool", "function")  # whose messages are what came of a call

_MOST = 128
_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
_OF_ROLE = {"assistant": CALL_KEYS, "tool": {"tool_call_id", "name"}, "function": {"name"}}


class Note(Protocol):
    """Takes an issue of the line: its code, and what is said of the example."""

    def __call__(self, code: str, what: str, advice: str | None = None, /) -> None: ...


def keys_of(role: object) -> set[str]:
    """The keys beside role and content that a message has on account of tools."""
    return _OF_ROLE.get(role, set()) if isinstance(role, str) else set()


def tools_of(row: Mapping[str, Any], note: Note) -> list[Tool]:
    """The tools that a line lists."""
    if type(row.get("parallel_tool_calls", True)) is not bool:
        what = f": 'parallel_tool_calls' is {preview(row['parallel_tool_calls'])}."
        note("invalid_tools", what, "It is true or false.")
    tools = [*_listed(row, "tools", note), *_listed(row, "functions", note)]
    names = [tool.name for tool in tools]
    for name in sorted({name for name in names if names.count(name) > 1}):
        note("invalid_tools", f" lists the tool {preview(name)} twice.", "Keep one of them.")
    return tools


def calls_of(message: Mapping[str, Any], where: str, note: Note) -> list[str] | None:
    """The calls of an assistant message, as text; None where one is none, which `note` is told."""
    calls, older = message.get("tool_calls"), message.get("function_call")
    if calls is not None and not (isinstance(calls, list) and calls):
        note("invalid_tool_call", f"{where} has 'tool_calls' that are {preview(calls)}.")
        return None
    made = [
        _call(_called(call), f"{where}, call {place}", note)
        for place, call in enumerate(calls or (), start=1)
    ]
    if older is not None:
        made.append(_call(older, f"{where}, 'function_call'", note))
    dump_row = [call for call in made if call is not None]
    return dump_row if len(dump_row) == len(made) else None


def check_order(messages: Sequence[Mapping[str, Any]], note: Note) -> None:
    """Each tool message answers a call of the assistant message before it, and each is answered.

    All but the calls of the last message: nothing is said behind them.
    """
    pending = PendingCalls()
    for place, message in enumerate(messages, start=1):
        where = f", message {place}"
        if message["role"] == "tool":
            if not pending.answer(message.get("tool_call_id")):
                note("unexpected_tool_message", f"{where} answers no call that was just made.")
            continue
        for id, made in pending.close().items():
            note("unanswered_tool_call", f"{made}: the call {preview(id)} is not answered.")
        if message["role"] == "assistant":
            for call in message.get("tool_calls") or ():
                pending.add(call["id"], where)


def called_names(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """The tools that are called, listed or not."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    older = [message["function_call"] for message in messages if message.get("function_call")]
    return {call["name"] for call in (*(call["function"] for call in calls), *older)}


def _listed(row: Mapping[str, Any], key: str, note: Note) -> Iterator[Tool]:
    entries = row.get(key)
    if entries is None:
        return
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MOST:
        found = f"{len(entries)}" if isinstance(entries, list) and entries else preview(entries)
        note("invalid_tools", f": '{key}' must be a list of 1 to {_MOST} tools, not {found}.")
        return
    for place, entry in enumerate(entries, start=1):
        function = _described(entry) if key == "tools" else entry
        wrong = _fault(function)
        if wrong is not None:
            note("invalid_tools", f", {key} {place} {wrong}.")
            continue
        tool = Tool.from_api(
            function["name"], function.get("parameters"), function.get("description")
        )
        if is_encodable(tools_prompt([tool])):
            yield tool
        else:
            what = f", {key} {place} holds half a character (a lone surrogate)."
            note("lone_surrogate", what)


def _described(entry: Any) -> Any:
    known = isinstance(entry, dict) and entry.get("type") == "function"
    return entry.get("function") if known else None


def _fault(function: Any) -> str | None:
    if not isinstance(function, dict):
        return "is no function"
    name, parameters = function.get("name"), function.get("parameters")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        return f"has the name {preview(name)}, not up to 64 letters, digits, _ and -"
    if not isinstance(function.get("description") or "", str):
        return f"has the description {preview(function['description'])}, not a text"
    if parameters is not None and not isinstance(parameters, dict):
        return f"has the parameters {preview(parameters)}, not a JSON schema"
    if (parameters or {}).get("type", "object") != "object":
        return "has parameters of another type than object"
    return None


def _called(call: Any) -> Any:
    whole = isinstance(call, dict) and call.get("type") == "function"
    return call.get("function") if whole and isinstance(call.get("id"), str) else None


def _call(function: Any, where: str, note: Note) -> str | None:
    if not isinstance(function, dict):
        note("invalid_tool_call", f"{where} is no call of a function with an id.")
        return None
    name, arguments = function.get("name"), function.get("arguments")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        note("invalid_tool_call", f"{where} calls {preview(name)}, which is no name of a tool.")
        return None
    try:
        given = parse_json(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        what = f"{where} has arguments that are no JSON object in a string: {preview(arguments)}."
        note("invalid_tool_call", what)
        return None
    # Spaced as chats write them, whatever the file's own way.
    text = json.dumps(given, ensure_ascii=False)
    if not is_encodable(text):
        note("lone_surrogate", f"{where} holds half a character (a lone surrogate).")
        return None
    return call_text(name, text)
