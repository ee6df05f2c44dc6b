"""What grammars may cost, before they are compiled and while they mask."""

import gc
from pathlib import Path
from typing import Any

import llguidance
import pytest
import torch
from tiny_model import chat_tiny

from emojitune.dataset.tool_format import Tool
from emojitune.errors import EmojituneError
from emojitune.inference.decoding import grammar, grammar_limits
from emojitune.inference.decoding.grammar import Grammar, GrammarCompiler
from emojitune.inference.decoding.grammar_limits import MAX_COST, schema_cost
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.faults import Field, RequestFault
from emojitune.models.renderer import Renderer


def properties(count: int, required: bool = False) -> dict[str, Any]:
    names = [f"p{number}" for number in range(count)]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    return {**schema, "required": names if required else [], "additionalProperties": False}


@pytest.fixture
def renderer(tiny_base: Path) -> Renderer:
    return chat_tiny(tiny_base)._renderer


@pytest.fixture
def compiler(renderer: Renderer) -> GrammarCompiler:
    return GrammarCompiler(renderer.tokenizer, renderer.stop_ids)


def test_the_cost_of_a_schema() -> None:
    assert schema_cost({}) == 1
    assert schema_cost({"enum": ["a", "b", {"c": None}]}) == 1 + 1 + 3 + 1
    assert schema_cost({"const": "x" * 1000}) == 2 + 40
    assert schema_cost({"x" * 1000: True}) == 2 + 40
    # Optional properties cost by their square, required ones by their number.
    assert schema_cost(properties(1000, required=True)) < 6_000
    assert schema_cost(properties(1000)) - schema_cost(properties(1000, required=True)) > 3_000
    assert schema_cost(properties(10_000)) > 10 * MAX_COST
    assert schema_cost({"properties": ["p"], "required": {"p": 1}}) < 10  # is no schema at all


@pytest.mark.parametrize(
    "schema",
    [
        properties(10_000),
        properties(10_000, required=True),
        {"enum": [f"value {number}" for number in range(30_000)]},
        {"type": "string", "pattern": "a|" * 300_000},
    ],
    ids=["optional", "required", "enum", "pattern"],
)
def test_a_schema_that_costs_too_much_is_not_even_compiled(
    renderer: Renderer,
    compiler: GrammarCompiler,
    schema: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled: list[str] = []

    def matcher(text: str) -> Any:
        compiled.append(text)
        return GrammarCompiler._matcher(compiler, text)

    monkeypatch.setattr(compiler, "_matcher", matcher)
    with pytest.raises(RequestFault, match="it is too large") as refused:
        compiler.compile(schema, None, strict=True)
    assert (refused.value.field, refused.value.code) == (Field.SCHEMA, "invalid_value")
    with pytest.raises(RequestFault, match="Invalid schema for function 'f': it is too large"):
        compiler.compile(None, ToolUse((Tool("f", schema, strict=True),)))
    assert not compiled
    # One that is not strict is never refused: any value is allowed, any object in a call.
    assert spell(compiler.compile(schema, None), renderer, "[1]")
    assert max(map(len, compiled)) < 10_000


def test_finding_what_can_be_enforced_ends_with_the_budget(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad: dict[str, Any] = {"type": "string", "pattern": "(?=a)"}
    for _ in range(60):
        bad = {"type": "object", "properties": {"a": bad, "b": {"type": "null"}}}
    spent: list[int] = []

    def counted(schema: dict[str, Any]) -> int:
        spent.append(1)
        return schema_cost(schema)

    monkeypatch.setattr(grammar, "schema_cost", counted)
    tools = tuple(Tool(f"f{number}", bad) for number in range(100))
    compiler.compile(None, ToolUse(tools))
    assert len(spent) < MAX_COST / grammar_limits.MIN_COST + 2 * len(tools)


def test_the_tools_of_a_request_have_one_budget(compiler: GrammarCompiler) -> None:
    tools = tuple(Tool(f"f{n}", properties(1500, required=True), strict=True) for n in range(5))
    compiler.compile(None, ToolUse(tools[:3]))
    with pytest.raises(RequestFault, match="it is too large") as refused:
        compiler.compile(None, ToolUse(tools))
    assert refused.value.index in {3, 4}


def test_grammars_in_use_are_bounded_for_each_owner(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = properties(100, required=True)
    monkeypatch.setattr(grammar_limits, "MAX_HELD_COST", 7 * schema_cost(schema))
    held = [compiler.compile(schema, None, owner="one") for _ in range(3)]
    with pytest.raises(EmojituneError, match="Too many large schemas") as refused:
        compiler.compile(schema, None, owner="one")
    assert refused.value.code == "server_busy"
    others = [compiler.compile(schema, None, owner=number) for number in range(4)]
    with pytest.raises(EmojituneError, match="Too many large schemas"):
        compiler.compile(schema, None, owner="late")
    guide = held[0]()
    held.clear()
    others.clear()
    gc.collect()
    held += [compiler.compile(schema, None, owner="one") for _ in range(2)]
    with pytest.raises(EmojituneError, match="Too many large schemas"):
        compiler.compile(schema, None, owner="one")
    del guide
    gc.collect()
    compiler.compile(schema, None, owner="one")


def test_guides_go_on_where_the_states_of_a_lexer_become_too_many(
    renderer: Renderer, compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = {"type": "string", "pattern": "^([a-z]{1,9} ){1,9}$"}
    text = '"be so kind as to tell me now '
    unlimited = compiler.compile(schema, None, strict=True)()
    few = llguidance.LLParserLimits(max_lexer_states=80)
    monkeypatch.setattr(grammar, "parser_limits", lambda: few)
    limited = compiler.compile(schema, None, strict=True)
    first, guides = limited.matcher, [limited(), limited()]
    for token in renderer.encode_text(text):
        expected = unlimited.allowed(400)
        for guide in guides:
            assert torch.equal(guide.allowed(400), expected)
        assert expected[token]
        for guide in [unlimited, *guides]:
            guide.advance(token)
    assert limited.matcher is not first
    assert all(guide._origin is limited.matcher for guide in guides), "one lexer for all"


def test_a_costly_grammar_is_never_compiled_while_replies_are_written(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar, "MAX_LATER_COST", 0)
    compiled = compiler.compile({"type": "string"}, None)
    monkeypatch.setattr(compiler, "_matcher", None)
    assert compiled.fallback() is not None
    assert not compiled.is_renewable


def spell(grammar: Grammar, renderer: Renderer, text: str) -> bool:
    """Whether a reply may be this text."""
    guide = grammar()
    for token in renderer.encode_text(text):
        if not guide.allowed(400)[token]:
            return False
        guide.advance(token)
    return True
