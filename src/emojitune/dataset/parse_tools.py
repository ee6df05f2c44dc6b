"""The tools of a JSON line: their definitions, calls and results, in both forms of the API.

Knows `tools` and `tool_calls`, and the deprecated `functions` and `function_call`. Like `parse.py`,
it checks the form of one line.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from emojitune.dataset.rules import preview
from emojitune.dataset.strict_json import is_encodable, parse_json
from emojitune.dataset.tool_format import Tool, call_text, tools_prompt
from emojitune.dataset.tool_order import PendingCalls

TOOL_ROW_KEYS = {"tools", "parallel_tool_calls", "functions"}
CALL_KEYS = {"tool_calls", "function_call"}
TOOL_MESSAGE_KEYS = {"tool_call_id"} | CALL_KEYS
RESULT_ROLES = ("tool", "function")  # of messages that are the result of a call

_MAX_TOOLS = 128
_NAME = re.compile("[a-zA-Z0-9_-]{1,64}")
_KEYS_BY_ROLE = {"assistant": CALL_KEYS, "tool": {"tool_call_id", "name"}, "function": {"name"}}


class ReportIssue(Protocol):
    """Reports an issue of the line: its code, the problem, and advice if not the rule's."""

    def __call__(self, code: str, problem: str, advice: str | None = None, /) -> None: ...


def tool_keys(role: object) -> set[str]:
    """The keys that tools add to messages of a role."""
    return _KEYS_BY_ROLE.get(role, set()) if isinstance(role, str) else set()


def parse_tools(row: Mapping[str, Any], report: ReportIssue) -> list[Tool]:
    """The tools that a line defines."""
    if type(row.get("parallel_tool_calls", True)) is not bool:
        problem = f": 'parallel_tool_calls' is {preview(row['parallel_tool_calls'])}."
        report("invalid_tools", problem, "It is true or false.")
    tools = [*_parse_list(row, "tools", report), *_parse_list(row, "functions", report)]
    names = [tool.name for tool in tools]
    for name in sorted({name for name in names if names.count(name) > 1}):
        report("invalid_tools", f" lists the tool {preview(name)} twice.", "Keep one of them.")
    return tools


def parse_calls(message: Mapping[str, Any], where: str, report: ReportIssue) -> list[str] | None:
    """The calls of an assistant message as text; None, after a report, if one is invalid."""
    calls, deprecated = message.get("tool_calls"), message.get("function_call")
    if calls is not None and not (isinstance(calls, list) and calls):
        report("invalid_tool_call", f"{where} has 'tool_calls' that are {preview(calls)}.")
        return None
    parsed = [
        _parse_call(_function_of(call), f"{where}, call {number}", report)
        for number, call in enumerate(calls or (), start=1)
    ]
    if deprecated is not None:
        parsed.append(_parse_call(deprecated, f"{where}, 'function_call'", report))
    valid = [call for call in parsed if call is not None]
    return valid if len(valid) == len(parsed) else None


def check_order(messages: Sequence[Mapping[str, Any]], report: ReportIssue) -> None:
    """Report results without a call in the assistant message before them, and calls without a
    result; the calls of the last message need none."""
    pending = PendingCalls()
    for number, message in enumerate(messages, start=1):
        where = f", message {number}"
        if message["role"] == "tool":
            if not pending.answer(message.get("tool_call_id")):
                report("unexpected_tool_message", f"{where} answers no call that was just made.")
            continue
        for id, place in pending.close().items():
            report("unanswered_tool_call", f"{place}: the call {preview(id)} is not answered.")
        if message["role"] == "assistant":
            for call in message.get("tool_calls") or ():
                pending.add(call["id"], where)


def called_names(messages: Sequence[Mapping[str, Any]]) -> set[str]:
    """The names of all tools that are called, defined or not."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    deprecated = [m["function_call"] for m in messages if m.get("function_call")]
    return {call["name"] for call in (*(call["function"] for call in calls), *deprecated)}


def _parse_list(row: Mapping[str, Any], key: str, report: ReportIssue) -> Iterator[Tool]:
    entries = row.get(key)
    if entries is None:
        return
    if not isinstance(entries, list) or not 1 <= len(entries) <= _MAX_TOOLS:
        actual = f"{len(entries)}" if isinstance(entries, list) and entries else preview(entries)
        problem = f": '{key}' must be a list of 1 to {_MAX_TOOLS} tools, not {actual}."
        report("invalid_tools", problem)
        return
    for number, entry in enumerate(entries, start=1):
        function = _definition_of(entry) if key == "tools" else entry
        fault = _fault_of(function)
        if fault is not None:
            report("invalid_tools", f", {key} {number} {fault}.")
            continue
        tool = Tool.from_api(
            function["name"], function.get("parameters"), function.get("description")
        )
        if is_encodable(tools_prompt([tool])):
            yield tool
        else:
            problem = f", {key} {number} holds half a character (a lone surrogate)."
            report("lone_surrogate", problem)


def _definition_of(entry: Any) -> Any:
    is_function = isinstance(entry, dict) and entry.get("type") == "function"
    return entry.get("function") if is_function else None


def _fault_of(function: Any) -> str | None:
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


def _function_of(call: Any) -> Any:
    is_function = isinstance(call, dict) and call.get("type") == "function"
    return call.get("function") if is_function and isinstance(call.get("id"), str) else None


def _parse_call(function: Any, where: str, report: ReportIssue) -> str | None:
    if not isinstance(function, dict):
        report("invalid_tool_call", f"{where} is not a function call with an id.")
        return None
    name, arguments = function.get("name"), function.get("arguments")
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        report(
            "invalid_tool_call", f"{where} calls {preview(name)}, which is not the name of a tool."
        )
        return None
    try:
        parsed = parse_json(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        actual = preview(arguments)
        problem = f"{where} has arguments that are not a JSON object in a string: {actual}."
        report("invalid_tool_call", problem)
        return None
    # Serialized again, so that the spacing is that of chats.
    text = json.dumps(parsed, ensure_ascii=False)
    if not is_encodable(text):
        report("lone_surrogate", f"{where} holds half a character (a lone surrogate).")
        return None
    return call_text(name, text)
