"""The text of grammars, in llguidance's dialect of Lark."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from emojitune.dataset.tool_format import CALL_BEGIN, CALL_END, SEPARATOR, Tool, call_prefix
from emojitune.inference.decoding.params import ToolUse

# One way to write each value: a small model that may write any white space anywhere never ends.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def reply_grammar(schema: Mapping[str, Any] | None, tools: ToolUse | None) -> str:
    """The grammar of a reply.

    The reply's content is JSON of the schema, or any text in which no call begins. With tools,
    calls are an alternative to it, or the only choice; after text they may also follow it.
    """
    if tools is None:
        return "\n".join(["start: content", *_content_rules(schema)])
    several = tools.parallel and tools.choice != "named"
    more = f" ({_quoted(SEPARATOR)} call)*" if several else ""
    if tools.choice != "auto":
        lines = [f"start: call{more}"]
    elif schema is not None:
        lines = ["start: content", f"| call{more}", *_content_rules(schema)]
    else:
        # One lexeme for the text and the beginning of a call: the lexer never backtracks, and text
        # alone would reach into the call.
        lines = ["start: content", f"| OPENING body{more}", *_content_rules(None)]
        lines.append(f"OPENING: /{_WITH_CALL}/ & ~/{_WITH_CALL}{_ANY}+/")
    return "\n".join([*lines, *_call_rules(tools.tools)])


_ANY = r"(.|\n)"
_WITH_CALL = f"{_ANY}*{CALL_BEGIN}"


def _content_rules(schema: Mapping[str, Any] | None) -> list[str]:
    if schema is not None:
        return [f"content: {json_rule(schema)}"]
    return ["content: TEXT", f"TEXT: /{_ANY}*/ & ~/{_WITH_CALL}{_ANY}*/"]


def _call_rules(tools: Sequence[Tool]) -> list[str]:
    lines = [f"call: {_quoted(CALL_BEGIN)} body"]
    lines.append("body: " + " | ".join(f"body_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        head = _quoted(call_prefix(tool.name).removeprefix(CALL_BEGIN))
        lines.append(f"body_{number}: {head} arguments_{number} {_quoted('}' + CALL_END)}")
        lines.append(f"arguments_{number}: {json_rule(tool.parameters)}")
    return lines


def json_rule(schema: Mapping[str, Any], lenient: bool = True) -> str:
    """A rule for JSON of the schema; `lenient` ignores most unknown keywords instead of failing."""
    return f"%json {json.dumps({**schema, 'x-guidance': {**_JSON_STYLE, 'lenient': lenient}})}"


def _quoted(text: str) -> str:
    return json.dumps(text)
