"""Schemas that a grammar cannot enforce in full: accepted, unless they are strict."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes import FakeDispatcher
from openai import BadRequestError, OpenAI
from servers import KEY, serving
from tiny_model import chat_tiny

from emojitune.inference.chat_model import ChatModel
from emojitune.server.app import create_app
from emojitune.settings import Settings

MODEL = "gpt-3.5-turbo"
ASK = "Some json, please."
CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": ASK}]}
TEXT = {"type": "string"}
AMOUNT = r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"  # what pydantic writes for a Decimal

# A property's schema, and the keyword that the refusal of its strict form names.
UNHELD: list[tuple[Any, str]] = [
    ({"type": "array", "items": TEXT, "uniqueItems": True}, "uniqueItems"),
    ({"not": TEXT}, "not"),
    ({"type": "object", "if": {"required": ["a"]}, "then": {"required": ["b"]}}, "then"),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames"),
    ({"oneOf": [TEXT, {"type": "string", "minLength": 2}]}, "oneOf"),
    ({"type": "array", "contains": TEXT}, "contains"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"type": "string", "format": "password"}, "format: password"),
    ({"type": "string", "pattern": AMOUNT}, "look-around"),
    ({"type": "object", "patternProperties": {"^(?!x)": TEXT}}, "look-around"),
    ({"type": "wat"}, "Invalid type: wat"),
    ({"type": ["string", "wat"]}, "Invalid type: wat"),
    ({"$ref": "#/$defs/missing"}, "/$defs/missing"),
    ({"$ref": "https://example.com/schema"}, "https://example.com/schema"),
    ({"type": "object", "required": ["b"], "additionalProperties": False}, "'v' is unsatisfiable"),
    ({"type": "integer", "minimum": 5, "maximum": 2}, "'v' is unsatisfiable"),
    ({"type": "integer", "multipleOf": 999983}, "multipleOf"),
    ({"enum": []}, "'v' is unsatisfiable"),
    ({"type": "object", "properties": 5}, "properties must be an object"),
    ({"type": "array", "minItems": -1}, "minItems"),
    (False, "'v' is unsatisfiable"),
]

DEEP: dict[str, Any] = {}
for _ in range(80):
    DEEP = {"type": "object", "properties": {"v": DEEP}, "required": ["v"]}

WHOLE: list[Any] = [
    *({"type": "object", "properties": {"v": schema}, "required": ["v"]} for schema, _ in UNHELD),
    None, {}, {"type": None}, {"properties": {}}, {"type": "object", "anyOf": [TEXT]},
    {"$ref": "#"}, {"$ref": "#/$defs/no"}, {"$schema": "what"}, {"required": "v"}, DEEP,
    {"properties": {"v": {"$ref": "#"}}, "required": ["v"]},
]  # fmt: skip
PRICED: dict[str, Any] = {
    "type": "object",
    "properties": {"price": {"$ref": "#/$defs/price"}, "count": {"type": "integer", "maximum": 9}},
    "required": ["price", "count"],
    "additionalProperties": False,
    "$defs": {
        "price": {
            "type": "object",
            "properties": {
                "amount": {"anyOf": [{"type": "null"}, {"type": "string", "pattern": AMOUNT}]},
                "currency": {"enum": ["EUR", "USD"]},
            },
            "required": ["amount", "currency"],
            "additionalProperties": False,
        }
    },
}


def format_with(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"v": schema}, "required": ["v"]}


def tool(parameters: Any, **more: Any) -> Any:
    function = {"name": "f", "parameters": parameters, **more}
    return {"type": "function", "function": function}


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> ChatModel:
    return chat_tiny(tiny_base, context_length=8192)


@pytest.fixture(scope="module")
def url(model: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("schemas")
    settings = Settings(home=folder / "home", cache=folder / "cache", api_key=KEY)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=lambda *_: model)
    with serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def short(model: ChatModel) -> dict[str, Any]:
    """Parameters that make a random model end texts, objects and lists early."""
    signs = {'"': 100, "}": 90, "]": 90}
    bias = {str(model._renderer.encode_text(sign)[0]): value for sign, value in signs.items()}
    return {"temperature": 0, "max_tokens": 1500, "logit_bias": bias}


@pytest.mark.parametrize(("schema", "word"), UNHELD, ids=[word for _, word in UNHELD])
def test_unenforceable_keywords_are_shown_and_refused_only_where_strict(
    client: OpenAI, schema: Any, word: str
) -> None:
    parameters = format_with(schema)
    shape: Any = {"name": "f", "schema": parameters}
    flat: Any = {"type": "function", "name": "f", "parameters": parameters}
    output: Any = {"format": {"type": "json_schema", **shape}}
    chat, create = client.chat.completions.create, client.responses.create
    for strict in ({}, {"strict": False}):
        chat(**CHAT, tools=[tool(parameters, **strict)], max_tokens=1)
        asked: Any = {"type": "json_schema", "json_schema": {**shape, **strict}}
        chat(**CHAT, response_format=asked, max_tokens=1)
        create(model=MODEL, input=ASK, tools=[{**flat, **strict}], max_output_tokens=16)
    create(model=MODEL, input=ASK, text=output, max_output_tokens=16)

    strict = {"strict": True}
    shape.update(strict)
    output["format"].update(strict)
    for param, ask in (
        ("tools[0].function.parameters",
         lambda: chat(**CHAT, tools=[tool(parameters, **strict)])),
        ("response_format",
         lambda: chat(**CHAT, response_format={"type": "json_schema", "json_schema": shape})),
        ("tools[0].parameters",
         lambda: create(model=MODEL, input=ASK, tools=[{**flat, **strict}])),
        ("text.format.schema", lambda: create(model=MODEL, input=ASK, text=output)),
    ):  # fmt: skip
        with pytest.raises(BadRequestError) as caught:
            ask()
        assert caught.value.param == param
        assert word in caught.value.message
        assert "'strict' to false" in caught.value.message


@pytest.mark.parametrize("parameters", WHOLE, ids=lambda schema: str(schema)[:60])
def test_a_required_call_has_an_object_whatever_its_schema(
    client: OpenAI, short: dict[str, Any], parameters: Any
) -> None:
    completion = client.chat.completions.create(
        **CHAT, **short, tools=[tool(parameters)], tool_choice="required", parallel_tool_calls=False
    )
    [call] = completion.choices[0].message.tool_calls or []
    assert isinstance(json.loads(call.function.arguments), dict)
    assert completion.choices[0].finish_reason == "tool_calls"


def test_the_keywords_beside_an_unenforceable_one_are_enforced(
    client: OpenAI, short: dict[str, Any]
) -> None:
    completion = client.chat.completions.create(
        **CHAT, **short, tools=[tool(PRICED)], tool_choice="required", parallel_tool_calls=False
    )
    [call] = completion.choices[0].message.tool_calls or []
    given = json.loads(call.function.arguments)
    jsonschema.validate(given, json.loads(json.dumps(PRICED).replace("pattern", "x-pattern")))


def test_a_strict_tool_beside_another_is_enforced_in_full(
    client: OpenAI, short: dict[str, Any]
) -> None:
    """Even where the other tool's schema fails while the reply is generated."""
    endless = {"properties": {"v": {"$ref": "#"}}, "required": ["v"]}
    strict = {"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"],
              "additionalProperties": False}  # fmt: skip
    tools = [tool(endless), tool(strict, strict=True, name="g")]
    choice: Any = {"type": "allowed_tools", "allowed_tools": {
        "mode": "required", "tools": [{"type": "function", "function": {"name": name}}
                                      for name in "fg"]}}  # fmt: skip
    completion = client.chat.completions.create(
        **CHAT, **{**short, "temperature": 2}, tools=tools, tool_choice=choice, seed=1, n=8,
        parallel_tool_calls=False,
    )  # fmt: skip
    assert {choice.message.tool_calls[0].function.name for choice in completion.choices} == {*"fg"}
    for answer in completion.choices:
        [call] = answer.message.tool_calls or []
        given = json.loads(call.function.arguments)
        assert given == {"n": 7} if call.function.name == "g" else isinstance(given, dict)
