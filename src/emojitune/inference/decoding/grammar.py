"""Grammars: the tokens that keep a reply inside a JSON schema, or inside the form of a tool call.

llguidance parses and masks; this module decides what is enforced, and reports errors. It is
imported with the first reply that needs it.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from emojitune.dataset.tool_format import Tool
from emojitune.inference.decoding.grammar_limits import (
    MAX_COST,
    MAX_LATER_COST,
    MAX_REMAINDERS,
    Budget,
    BudgetError,
    HeldCosts,
    parser_limits,
    remainders,
    schema_cost,
)
from emojitune.inference.decoding.grammar_rules import json_rule, reply_grammar
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.decoding.schema_relaxation import relaxed
from emojitune.inference.faults import Field, RequestFault

T = TypeVar("T")
Schema = Mapping[str, Any]

_ANY_OBJECT = {"type": "object"}


class GrammarCompiler:
    """Compiles grammars for the tokens of one model."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        import llguidance.hf

        stops, backend = sorted(stop_ids), tokenizer.backend_tokenizer
        if backend.padding or backend.truncation:
            self._tokens = llguidance.hf.from_tokenizer(tokenizer, eos_token=stops)
        else:  # without the copy that is made there, in which both are taken off
            self._tokens = llguidance.LLTokenizer(backend.to_str(), eos_token=stops)
        self._held = HeldCosts()

    def compile(
        self,
        schema: Schema | None,
        tools: ToolUse | None,
        strict: bool = False,
        owner: Hashable = None,
    ) -> "Grammar":
        """The grammar of replies in a schema, of tool calls, or of either.

        A strict schema is enforced entirely, any other as far as llguidance can and as the budget
        of a request goes. Where even that fails while a reply is written, a fallback grammar
        continues: calls with any objects, any JSON.

        Raises:
            RequestFault: A strict schema is invalid, or cannot be enforced.
            EmojituneError: The grammars in use take too much memory; `server_busy`.
        """
        count = (len(tools.tools) if tools else 0) + (schema is not None)
        check = _SchemaCheck(self._matcher, MAX_REMAINDERS // max(1, count))
        enforced = tools and replace(
            tools, tools=tuple(map(check.enforceable_tool, range(count), tools.tools))
        )
        if schema is not None:
            schema = check.enforceable(schema, strict)
        any_value = schema if schema is None or strict else {}
        any_calls = enforced and _with_any_objects(enforced)
        grammar = Grammar(
            partial(self._matcher, reply_grammar(schema, enforced)),
            partial(self._matcher, reply_grammar(any_value, any_calls)),
            check.cost,
        )
        self._held.hold(owner, check.cost)
        weakref.finalize(grammar, self._held.release, owner, check.cost)
        return grammar

    def _matcher(self, grammar: str) -> Any:
        import llguidance

        lark = llguidance.LLMatcher.grammar_from_lark(grammar)
        return llguidance.LLMatcher(self._tokens, lark, log_level=0, limits=parser_limits())


class _SchemaCheck:
    """Finds what can be enforced of the schemas of one request.

    Attributes:
        cost: Of all that is to be enforced.
    """

    def __init__(self, matcher: Callable[[str], Any], max_remainders: int) -> None:
        self.cost = 0
        self._matcher = matcher
        self._max_remainders = max_remainders
        self._budget = Budget()

    def enforceable_tool(self, number: int, tool: Tool) -> Tool:
        """The tool with the schema that is enforced on its calls."""
        if not tool.strict:
            return replace(tool, parameters=self._relaxed(tool.parameters) or _ANY_OBJECT)
        self._require(
            tool.parameters,
            Field.TOOL_PARAMETERS,
            lambda _: f"Invalid schema for function '{tool.name}'",
            "invalid_function_parameters",
            number,
        )
        return tool

    def enforceable(self, schema: Schema, strict: bool) -> Schema:
        """The schema that is enforced on a reply."""
        if not strict:
            return self._relaxed(schema)
        lead = "Invalid schema for {}".format
        self._require(schema, Field.SCHEMA, lead, "invalid_value")
        return schema

    def _relaxed(self, schema: Schema) -> Schema:
        try:
            schema = relaxed(schema, lambda part: not self._error(part, lenient=True))
        except BudgetError:
            return {}
        self.cost += schema_cost(schema)
        return schema

    def _require(
        self,
        schema: Schema,
        field: Field,
        lead: Callable[[str], str],
        code: str,
        index: int | None = None,
    ) -> None:
        try:
            error = self._error(schema, lenient=False)
        except BudgetError:
            error = (
                f"it is too large: the schemas of a request may cost {MAX_COST} here (1 for each "
                "value, and for 25 characters), and with those before it, it costs more"
            )
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
        self.cost += schema_cost(schema)

    def _error(self, schema: Schema, lenient: bool) -> str:
        """The reason why a schema cannot be enforced; empty where it can.

        Raises:
            BudgetError: It would take too long to find out.
        """
        self._budget.spend(schema_cost(schema))
        rule = json_rule(schema, lenient)
        if (found := remainders(rule)) > self._max_remainders:
            return (
                "its 'multipleOf' take too long to hold to: they may add up to "
                f"{self._max_remainders} here, without their decimal points, and add up to {found}"
            )
        error: str = self._matcher(f"start: value\nvalue: {rule}").get_error()
        return error


class Grammar:
    """A compiled grammar, which makes the guides of the replies to one request.

    Guides share the states that llguidance finds for its lexer. These only grow, with each text
    that a reply might go on with: where they become too many, guides continue with a fresh matcher.
    """

    def __init__(
        self, compile: Callable[[], Any], compile_fallback: Callable[[], Any], cost: int
    ) -> None:
        self.matcher = compile()
        self.fallback = cache(compile_fallback)
        self.is_renewable = cost <= MAX_LATER_COST
        self._compile = compile
        if not self.is_renewable:
            self.fallback()

    def __call__(self) -> "GrammarGuide":
        return GrammarGuide(self)

    def renewed(self, matcher: Any) -> Any:
        """A matcher whose lexer has few states, in place of `matcher`."""
        if matcher is self.matcher:
            self.matcher = self._compile()
        return self.matcher


class GrammarGuide:
    """One reply's state in a grammar, or in its fallback from where the grammar fails."""

    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self._origin = grammar.matcher
        self._matcher = self._origin.deep_copy()
        self._tokens: list[int] = []

    def allowed(self, size: int) -> Tensor:
        mask = self._do(lambda matcher: matcher.compute_bitmask())
        bits = np.frombuffer(mask, dtype=np.uint8)
        allowed = np.zeros(size, dtype=bool)
        covered = np.unpackbits(bits, bitorder="little")[:size]
        allowed[: len(covered)] = covered
        return torch.from_numpy(allowed)

    def advance(self, token: int) -> bool:
        self._do(lambda matcher: matcher.consume_token(token))
        self._tokens.append(token)
        return not self._matcher.is_stopped()

    def forced(self) -> Sequence[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def _do(self, step: Callable[[Any], T]) -> T:
        """The result of a step, by a renewed matcher or the fallback's where this one fails."""
        result = step(self._matcher)
        if self._grammar.is_renewable and "too many states" in self._matcher.get_error():
            result = self._do_with(self._grammar.renewed(self._origin), step)
        if self._matcher.is_error():
            result = self._do_with(self._grammar.fallback(), step)
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise RequestFault(
                Field.SCHEMA,
                f"The reply could not be constrained to its schema: {reason}. Use a "
                "simpler schema.",
                code="invalid_value",
            )
        return result

    def _do_with(self, origin: Any, step: Callable[[Any], T]) -> T:
        """The result of a step by a copy of another matcher, which takes the tokens so far."""
        self._origin = origin
        self._matcher = origin.deep_copy()
        self._matcher.consume_tokens(self._tokens)
        return step(self._matcher)


def _reason(error: str) -> str:
    """An error's first line; later ones show our grammar, which no client knows, or a pattern."""
    first, *more = error.splitlines()
    reason = first.split("failed to compile JSON schema: ")[-1]
    faults = [line.removeprefix("error: ") for line in more if line.startswith("error: ")]
    if faults and reason.startswith("regex parse error"):
        return f"pattern '{more[0].strip()[:80]}': {faults[0]}"
    return reason


def _with_any_objects(tools: ToolUse) -> ToolUse:
    """The tools, where those that are not strict take any object."""
    fallback = (
        tool if tool.strict else replace(tool, parameters=_ANY_OBJECT) for tool in tools.tools
    )
    return replace(tools, tools=tuple(fallback))
