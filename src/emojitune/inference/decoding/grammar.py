"""Grammars: the tokens that keep a reply inside a JSON schema, or inside the form of a tool call.

llguidance parses and masks; this module writes its grammars, and the errors that it reports. It is
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
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.decoding.schema_relaxation import relaxed
from emojitune.inference.faults import Field, RequestFault

# One way to write each value: a small model that may write any white space anywhere never ends.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_ANY_OBJECT = {"type": "object"}
# A grammar has a state for each remainder of a multiple: a hundred thousand of them take a second,
# and a schema is compiled several times.
_MULTIPLE = re.compile(r'(?<!\\)"multipleOf": (-?[\d.eE+-]+)')
_MAX_REMAINDERS = 10_000  # of all schemas of a request


class GrammarCompiler:
    """Compiles grammars for the tokens of one model."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        import llguidance.hf

        self._tokens = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(stop_ids))

    def compile(
        self, schema: Mapping[str, Any] | None, tools: ToolUse | None, strict: bool = False
    ) -> Callable[[], "GrammarGuide"]:
        """A factory of guides that constrain replies to a schema, to tool calls, or to either.

        A strict schema is enforced entirely, any other as far as llguidance can. Where even that
        fails while a reply is written, a fallback grammar continues: calls with any objects, any
        JSON.

        Raises:
            RequestFault: A strict schema is invalid, or cannot be enforced.
        """
        count = (len(tools.tools) if tools else 0) + (schema is not None)
        limit = _MAX_REMAINDERS // max(1, count)
        enforced = tools and replace(
            tools,
            tools=tuple(
                self._enforceable(number, tool, limit) for number, tool in enumerate(tools.tools)
            ),
        )
        if schema is not None and strict:
            self._check(
                schema,
                limit,
                Field.SCHEMA,
                lambda name: f"Invalid schema for {name}",
                "invalid_value",
            )
        elif schema is not None:
            schema = relaxed(schema, partial(self._compiles, limit))
        matcher = self._matcher(reply_grammar(schema, enforced))

        @cache
        def fallback() -> Any:
            any_value = schema if schema is None or strict else {}
            return self._matcher(reply_grammar(any_value, enforced and _with_any_objects(enforced)))

        return lambda: GrammarGuide(matcher.deep_copy(), lambda: fallback().deep_copy())

    def _enforceable(self, number: int, tool: Tool, limit: int) -> Tool:
        """The tool with the schema that is enforced on its calls."""
        if tool.strict:
            self._check(
                tool.parameters,
                limit,
                Field.TOOL_PARAMETERS,
                lambda _: f"Invalid schema for function '{tool.name}'",
                "invalid_function_parameters",
                number,
            )
            return tool
        return replace(
            tool, parameters=relaxed(tool.parameters, partial(self._compiles, limit)) or _ANY_OBJECT
        )

    def _check(
        self,
        schema: Mapping[str, Any],
        limit: int,
        field: Field,
        lead: Callable[[str], str],
        code: str,
        index: int | None = None,
    ) -> None:
        error = self._compile_error(schema, limit, lenient=False)
        if error:
            raise RequestFault(
                field,
                lambda name: (
                    f"{lead(name)}: {_reason(error)}. With 'strict' replies are constrained to the "
                    "schema token by token, and not every keyword of JSON Schema can be: leave it "
                    "out, write it otherwise, or set 'strict' to false."
                ),
                code=code,
                index=index,
            )

    def _compiles(self, limit: int, schema: Mapping[str, Any]) -> bool:
        return not self._compile_error(schema, limit, lenient=True)

    def _compile_error(self, schema: Mapping[str, Any], limit: int, lenient: bool) -> str:
        """The reason why a schema cannot be enforced; empty where it can."""
        rule = _json_rule(schema, lenient)
        remainders = sum(map(_remainders, _MULTIPLE.findall(rule)))
        if remainders > limit:
            return (
                f"its 'multipleOf' take too long to hold to: they may add up to {limit} here, "
                f"without their decimal points, and add up to {remainders}"
            )
        error: str = self._matcher(f"start: value\nvalue: {rule}").get_error()
        return error

    def _matcher(self, grammar: str) -> Any:
        import llguidance

        lark = llguidance.LLMatcher.grammar_from_lark(grammar)
        return llguidance.LLMatcher(self._tokens, lark, log_level=0)


class GrammarGuide:
    """One reply's state in a grammar, or in its fallback from where the grammar fails."""

    def __init__(self, matcher: Any, fallback: Callable[[], Any]) -> None:
        self._matcher = matcher
        self._fallback: Callable[[], Any] | None = fallback
        self._tokens: list[int] = []

    def allowed(self, size: int) -> Tensor:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            self._fall_back()
            mask = self._matcher.compute_bitmask()
            self._raise_error()
        bits = np.frombuffer(mask, dtype=np.uint8)
        allowed = np.zeros(size, dtype=bool)
        covered = np.unpackbits(bits, bitorder="little")[:size]
        allowed[: len(covered)] = covered
        return torch.from_numpy(allowed)

    def advance(self, token: int) -> bool:
        self._tokens.append(token)
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            self._fall_back()
            self._raise_error()
        return not self._matcher.is_stopped()

    def forced(self) -> Sequence[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def _fall_back(self) -> None:
        if self._fallback is not None:
            self._matcher, self._fallback = self._fallback(), None
            self._matcher.consume_tokens(self._tokens)

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise RequestFault(
                Field.SCHEMA,
                f"The reply could not be constrained to its schema: {reason}. Use a "
                "simpler schema.",
                code="invalid_value",
            )


def _remainders(multiple: str) -> int:
    """The number of remainders of a multiple, without its decimal point."""
    _, digits, exponent = Decimal(multiple).normalize().as_tuple()
    zeros = "0" * min(max(0, int(exponent)), 9)  # more of them are too many anyway
    return int("".join(map(str, digits)) + zeros)


def _reason(error: str) -> str:
    """An error's first line; later ones show our grammar, which no client knows, or a pattern."""
    first, *more = error.splitlines()
    reason = first.split("failed to compile JSON schema: ")[-1]
    faults = [line.removeprefix("error: ") for line in more if line.startswith("error: ")]
    if faults and reason.startswith("regex parse error"):
        return f"pattern '{more[0].strip()[:80]}': {faults[0]}"
    return reason


def reply_grammar(schema: Mapping[str, Any] | None, tools: ToolUse | None) -> str:
    """The grammar of a reply in llguidance's dialect of Lark.

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
    """The tools, where those that are not strict take any object."""
    fallback = (
        tool if tool.strict else replace(tool, parameters=_ANY_OBJECT) for tool in tools.tools
    )
    return replace(tools, tools=tuple(fallback))


def _json_rule(schema: Mapping[str, Any], lenient: bool = True) -> str:
    """A rule for JSON of the schema; `lenient` ignores most unknown keywords instead of failing."""
    return f"%json {json.dumps({**schema, 'x-guidance': {**_JSON_STYLE, 'lenient': lenient}})}"


def _quoted(text: str) -> str:
    return json.dumps(text)
