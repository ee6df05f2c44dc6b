"""Values that a description cannot specify: valid ones that pass a request's first checks, and odd
ones that test the later checks. By property, or by the title of its object and the property."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from schema_values import ODD_TEXTS, any_value, texts

_MODELS = st.sampled_from(["gpt-3.5-turbo", "gpt-4o-mini-2024-07-18", *["@model"] * 6, "", "x:y"])
_ROLES = st.sampled_from(["system", "developer", "user", "user", "assistant"])
_FEW = st.integers(1, 9)
_PATTERNS = ("^a+$", "(a|b)*c", "[", "(?=a)", "\\", "a{1,99999}", "((a*)*)*b", "\\p{L}", "\ud800")
_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object", "odd", ["string"])


@st.composite
def _json_schemas(draw: DrawFn, deep: int = 2) -> dict[str, Any]:
    """JSON Schemas, many of them invalid."""
    inner = _json_schemas(deep - 1) if deep else st.sampled_from([{}, {"type": "string"}])
    counts = st.sampled_from([0, 1, 3, 10**9, 2**64, -1, 0.5])
    keywords: Mapping[str, SearchStrategy[Any]] = {
        "properties": st.dictionaries(st.sampled_from(["a", "b", "", "\0"]), inner, max_size=2),
        "required": st.lists(st.sampled_from(["a", "b", "c"]), max_size=2),
        "additionalProperties": st.one_of(st.booleans(), inner),
        "items": inner,
        "prefixItems": st.lists(inner, max_size=2),
        "enum": st.lists(any_value, max_size=3),
        "const": any_value,
        "pattern": st.sampled_from(_PATTERNS),
        "format": st.sampled_from(["date-time", "uuid", "email", "odd"]),
        "minLength": counts,
        "maxLength": counts,
        "minItems": counts,
        "maxItems": counts,
        "minimum": counts,
        "maximum": counts,
        "multipleOf": counts,
        "anyOf": st.lists(inner, max_size=2),
        "allOf": st.lists(inner, max_size=2),
        "$ref": st.sampled_from(["#", "#/$defs/a", "https://example.com", ""]),
        "$defs": st.dictionaries(st.just("a"), inner, max_size=1),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(keywords)), max_size=3, unique=True))
    schema = {name: draw(keywords[name]) for name in chosen}
    if draw(st.integers(0, 3)):
        schema["type"] = draw(st.sampled_from(_TYPES))
    return schema


@st.composite
def _messages(draw: DrawFn) -> list[Any]:
    """A conversation, sometimes with a tool call."""
    turns: list[Any] = [
        {"role": draw(_ROLES), "content": draw(texts)} for _ in range(draw(st.integers(0, 3)))
    ]
    if draw(st.integers(0, 3)) == 0:
        call = {"id": draw(texts), "type": "function", "function": {"name": "f", "arguments": "{}"}}
        turns.append({"role": "assistant", "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": call["id"], "content": draw(texts)})
    content: Any = draw(st.one_of(texts, st.just([{"type": "text", "text": "What a day"}])))
    return [*turns, {"role": "user", "content": content}]


_FORMULAS = st.sampled_from(
    [
        *("a", "a + 1", "9**9**9", "1/0", "a.b", "f(a)", "min(a, 2)", "sqrt(-1)", "log(0)"),
        *("exp(1e9)", "", "x\0", "1e999", "a if a", "(" * 300, "-" * 3000 + "a"),
        "+".join("a" * 2000),
    ]
)
_TEMPLATES = st.one_of(
    texts,
    st.sampled_from(
        ["{{sample.output_text}}", "{{item.a}}", "{{ item.a.b }}", "{{", "{{item}}", "{{sample.x}}"]
    ),
)

KNOWN_VALUES: Mapping[str, SearchStrategy[Any]] = {
    "model": _MODELS,
    "ResponseRequest.model": _MODELS,
    "EmbeddingRequest.model": st.sampled_from(["text-embedding-3-small", "@model", "gpt-4"]),
    "ChatRequest.messages": _messages(),
    "logit_bias": st.dictionaries(
        st.one_of(st.integers(-2, 420).map(str), st.sampled_from(["x", "\u0663", "9" * 30, "1.5"])),
        st.sampled_from([-100, 100, 0, 1e-300, 101]),
        max_size=3,
    ),
    "labels": st.lists(st.sampled_from(["(party)", "(", "a", "aa", " ", *ODD_TEXTS]), max_size=4),
    "alternatives": st.integers(0, 5),
    "ResponseRequest.input": st.one_of(texts, _messages()),
    "CountRequest.input": st.one_of(texts, _messages()),
    "FunctionDefinition.name": st.sampled_from(["f", "f", "g", "a b", "x" * 65]),
    "FunctionTool.name": st.sampled_from(["f", "f", "g", "a b", "x" * 65]),
    "Named.name": st.sampled_from(["f", "g"]),
    "JsonSchema.name": st.sampled_from(["f", "a b"]),
    "parameters": _json_schemas(),
    "schema": _json_schemas(),
    "training_file": st.just("@file"),
    "validation_file": st.just("@file"),
    "input_file_id": st.just("@batch_file"),
    "endpoint": st.sampled_from(["/v1/chat/completions", "/v1/chat/completions", "/v1/files"]),
    "completion_window": st.just("24h"),
    "previous_response_id": st.just("@response"),
    "part_ids": st.lists(st.just("@part"), min_size=1, max_size=2),
    "max_tokens": _FEW,
    "max_completion_tokens": _FEW,
    "max_output_tokens": st.integers(16, 20),
    "n": st.integers(1, 3),
    "bytes": st.integers(1, 6),
    "calculate_output": _FORMULAS,
    "StringCheck.input": _TEMPLATES,
    "StringCheck.reference": _TEMPLATES,
    "TextSimilarity.input": _TEMPLATES,
    "TextSimilarity.reference": _TEMPLATES,
    "StringCheck.name": st.sampled_from(["a", "b", "a b"]),
    "TextSimilarity.name": st.sampled_from(["a", "b", "sqrt"]),
    "item": st.dictionaries(st.sampled_from(["a", "b"]), any_value, max_size=2),
}
