"""Grammars: which tokens keep a reply inside a JSON schema, or inside the form of a tool call.

llguidance parses and masks; here is what it is asked for, and how its objections read. It is
imported with the first reply that needs it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emojitune.chat.reply import ToolUse
from emojitune.dataset.tools import CALL_BEGIN, CALL_END, SEPARATOR, Tool, call_head
from emojitune.errors import InvalidRequestError

# One way to write each value: a small model that may put any white space anywhere never ends.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Vocabulary:
    """The tokens of one model as llguidance wants them: made once, when first asked for."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        import llguidance.hf

        self._tokens = llguidance.hf.from_tokenizer(tokenizer, eos_token=sorted(stop_ids))

    def guides(
        self, schema: Mapping[str, Any] | None, tools: ToolUse | None
    ) -> Callable[[], "GrammarGuide"]:
        """Makes guides that hold replies to a schema, to the form of tool calls, or to either.

        Raises:
            InvalidRequestError: A schema is none, or uses what cannot be held to.
        """
        for number, tool in enumerate(tools.tools if tools else ()):
            self._check(
                tool.parameters,
                f"tools[{number}].function.parameters",
                f"Invalid schema for function '{tool.name}'",
                "invalid_function_parameters",
            )
        if schema is not None:
            self._check(
                schema, "response_format", "Invalid schema for response_format", "invalid_value"
            )
        first = self._matcher(reply_grammar(schema, tools))
        return lambda: GrammarGuide(first.deep_copy())

    def _check(self, schema: Mapping[str, Any], param: str, what: str, code: str) -> None:
        objection = self._matcher(f"start: value\nvalue: {_json_rule(schema)}").get_error()
        if objection:
            # What follows the first line shows the grammar, which the asker never saw.
            reason = objection.splitlines()[0].split("failed to compile JSON schema: ")[-1]
            raise InvalidRequestError(
                f"{what}: {reason}. Replies are held to the schema token by token, and not every "
                "keyword of JSON Schema can be: leave it out or write it otherwise.",
                code=code,
                param=param,
            )

    def _matcher(self, grammar: str) -> Any:
        import llguidance

        lark = llguidance.LLMatcher.grammar_from_lark(grammar)
        return llguidance.LLMatcher(self._tokens, lark, log_level=0)


class GrammarGuide:
    """One reply's way through a grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self, size: int) -> Tensor:
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._raise_error()
        allowed = np.zeros(size, dtype=bool)
        known = np.unpackbits(bits, bitorder="little")[:size]
        allowed[: len(known)] = known
        return torch.from_numpy(allowed)

    def advance(self, token: int) -> bool:
        self._matcher.consume_token(token)
        self._raise_error()
        return not self._matcher.is_stopped()

    def forced(self) -> Sequence[int]:
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().splitlines()[0]
            raise InvalidRequestError(
                f"The reply could not be held to its schema: {reason}. Use a simpler schema.",
                code="invalid_value",
                param="response_format",
            )


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
        head = _quoted(call_head(tool.name).removeprefix(CALL_BEGIN))
        lines.append(f"body_{number}: {head} arguments_{number} {_quoted('}' + CALL_END)}")
        lines.append(f"arguments_{number}: {_json_rule(tool.parameters)}")
    return lines


def _json_rule(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _JSON_STYLE})}"


def _quoted(text: str) -> str:
    return json.dumps(text)
