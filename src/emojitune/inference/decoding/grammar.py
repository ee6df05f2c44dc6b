"""Grammars: which tokens keep a reply inside a JSON schema, or inside the form of a tool call.

llguidance parses and masks; here is what it is asked for, and how its objections read. It is
imported with the first reply that needs it.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emojitune.dataset.tool_format import CALL_BEGIN, CALL_END, SEPARATOR, Tool, call_prefix
from emojitune.errors import InvalidRequestError
from emojitune.inference.decoding.schema_relaxation import loosened
from emojitune.inference.types import ToolUse

# One way to write each value: a small model that may put any white space anywhere never ends.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANY_OBJECT = {"type": "object"}
# A grammar has a state for each remainder of a multiple: a hundred thousand of them take a second,
# and a schema is built several times.
_MULTIPLE = re.compile(r'(?<!\\)"multipleOf": (-?[\d.eE+-]+)')
_MOST_REMAINDERS = 10_000  # of all schemas of a request


class Vocabulary:
    """The tokens of one model as llguidance wants them: made once, when first asked for."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        import llguidance.hf

        self._tokens = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(stop_ids))

    def guides(
        self, schema: Mapping[str, Any] | None, tools: ToolUse | None, strict: bool = False
    ) -> Callable[[], "GrammarGuide"]:
        """Makes guides that hold replies to a schema, to the form of tool calls, or to either.

        What is strict is held to whole; of other schemas, as much as can be. Where even that turns
        out too much while a reply is written, its calls are held to any objects, its JSON to any.

        Raises:
            InvalidRequestError: A schema is strict, and is none or uses what cannot be held to.
        """
        count = (len(tools.tools) if tools else 0) + (schema is not None)
        most = _MOST_REMAINDERS // max(1, count)
        held = tools and replace(
            tools,
            tools=tuple(self._held(number, tool, most) for number, tool in enumerate(tools.tools)),
        )
        if schema is not None and strict:
            what = "Invalid schema for response_format"
            self._check(schema, most, "response_format", what, "invalid_value")
        elif schema is not None:
            schema = loosened(schema, partial(self._builds, most))
        first = self._matcher(reply_grammar(schema, held))

        @cache
        def plain() -> Any:
            any_value = schema if schema is None or strict else {}
            return self._matcher(reply_grammar(any_value, held and _with_any_objects(held)))

        return lambda: GrammarGuide(first.deep_copy(), lambda: plain().deep_copy())

    def _held(self, number: int, tool: Tool, most: int) -> Tool:
        """The tool with the schema that its calls are held to."""
        if tool.strict:
            self._check(
                tool.parameters,
                most,
                f"tools[{number}].function.parameters",
                f"Invalid schema for function '{tool.name}'",
                "invalid_function_parameters",
            )
            return tool
        return replace(
            tool, parameters=loosened(tool.parameters, partial(self._builds, most)) or _ANY_OBJECT
        )

    def _check(
        self, schema: Mapping[str, Any], most: int, param: str, what: str, code: str
    ) -> None:
        objection = self._objection(schema, most, lenient=False)
        if objection:
            raise InvalidRequestError(
                f"{what}: {_reason(objection)}. With 'strict' replies are held to the schema token "
                "by token, and not every keyword of JSON Schema can be: leave it out, write it "
                "otherwise, or set 'strict' to false.",
                code=code,
                param=param,
            )

    def _builds(self, most: int, schema: Mapping[str, Any]) -> bool:
        return not self._objection(schema, most, lenient=True)

    def _objection(self, schema: Mapping[str, Any], most: int, lenient: bool) -> str:
        rule = _json_rule(schema, lenient)
        found = sum(map(_remainders, _MULTIPLE.findall(rule)))
        if found > most:
            return (
                f"its 'multipleOf' take too long to hold to: they may add up to {most} here, "
                f"without their decimal points, and add up to {found}"
            )
        objection: str = self._matcher(f"start: value\nvalue: {rule}").get_error()
        return objection

    def _matcher(self, grammar: str) -> Any:
        import llguidance

        lark = llguidance.LLMatcher.grammar_from_lark(grammar)
        return llguidance.LLMatcher(self._tokens, lark, log_level=0)


class GrammarGuide:
    """One reply's way through a grammar, and from where that fails through a plainer one."""

    def __init__(self, matcher: Any, plainer: Callable[[], Any]) -> None:
        self._matcher = matcher
        self._plainer: Callable[[], Any] | None = plainer
        self._written: list[int] = []

    def allowed(self, size: int) -> Tensor:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            self._go_on_plainly()
            mask = self._matcher.compute_bitmask()
            self._raise_error()
        bits = np.frombuffer(mask, dtype=np.uint8)
        allowed = np.zeros(size, dtype=bool)
        known = np.unpackbits(bits, bitorder="little")[:size]
        allowed[: len(known)] = known
        return torch.from_numpy(allowed)

    def advance(self, token: int) -> bool:
        self._written.append(token)
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            self._go_on_plainly()
            self._raise_error()
        return not self._matcher.is_stopped()

    def forced(self) -> Sequence[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def _go_on_plainly(self) -> None:
        if self._plainer is not None:
            self._matcher, self._plainer = self._plainer(), None
            self._matcher.consume_tokens(self._written)

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise InvalidRequestError(
                f"The reply could not be held to its schema: {reason}. Use a simpler schema.",
                code="invalid_value",
                param="response_format",
            )


def _remainders(multiple: str) -> int:
    """How many remainders a number may have by a multiple, digit by digit."""
    _, digits, exponent = Decimal(multiple).normalize().as_tuple()
    zeros = "0" * min(max(0, int(exponent)), 9)  # beyond that it is too many anyway
    return int("".join(map(str, digits)) + zeros)


def _reason(objection: str) -> str:
    """The first line; those after it show the grammar, which the asker never saw, or a pattern."""
    first, *more = objection.splitlines()
    reason = first.split("failed to compile JSON schema: ")[-1]
    faults = [line.removeprefix("error: ") for line in more if line.startswith("error: ")]
    if faults and reason.startswith("regex parse error"):
        return f"pattern '{more[0].strip()[:80]}': {faults[0]}"
    return reason


def reply_grammar(schema: Mapping[str, Any] | None, tools: ToolUse | None) -> str:
    """The grammar of a reply in llguidance's dialect of Lark.

    Its own words are JSON of the schema, or any text in which no call begins. Where there are tools
    its calls are an alternative, or the only choice; behind words that are no JSON they may follow.
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
        # One lexeme for the words and the beginning of a call: the lexer never goes back, and
        # words alone would reach into it.
        lines = ["start: content", f"| OPENING body{more}", *_content_rules(None)]
        lines.append(f"OPENING: /{_WITH_CALL}/ & ~/{_WITH_CALL}{_ANY}+/")
    return "\n".join([*lines, *_call_rules(tools.tools)])


_ANY = r"(.|\n)"
_WITH_CALL = f"{_ANY}*{CALL_BEGIN}"


def _content_rules(schema: Mapping[str, Any] | None) -> list[str]:
    if schema is not None:
        return [f"content: {_json_rule(schema)}"]
    return ["content: TEXT", f"TEXT: /{_ANY}*/ & ~/{_WITH_CALL}{_ANY}*/"]


def _call_rules(tools: Sequence[Tool]) -> list[str]:
    lines = [f"call: {_quoted(CALL_BEGIN)} body"]
    lines.append("body: " + " | ".join(f"body_{number}" for number in range(len(tools))))
    for number, tool in enumerate(tools):
        head = _quoted(call_prefix(tool.name).removeprefix(CALL_BEGIN))
        lines.append(f"body_{number}: {head} arguments_{number} {_quoted('}' + CALL_END)}")
        lines.append(f"arguments_{number}: {_json_rule(tool.parameters)}")
    return lines


def _with_any_objects(tools: ToolUse) -> ToolUse:
    """The same tools; whatever is not strict takes any object."""
    plain = (tool if tool.strict else replace(tool, parameters=_ANY_OBJECT) for tool in tools.tools)
    return replace(tools, tools=tuple(plain))


def _json_rule(schema: Mapping[str, Any], lenient: bool = True) -> str:
    """`lenient` passes over most keywords that are not known, instead of objecting to them."""
    return f"%json {json.dumps({**schema, 'x-guidance': {**_JSON_STYLE, 'lenient': lenient}})}"


def _quoted(text: str) -> str:
    return json.dumps(text)
