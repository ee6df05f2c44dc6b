import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Self

import anyio
import pytest
from fastapi.routing import APIRoute
from pydantic import ValidationError, model_validator

from emojitune.errors import InvalidRequestError
from emojitune.server import app
from emojitune.server.docs.openapi import body_model_of
from emojitune.server.http import json_bodies
from emojitune.server.http.json_bodies import (
    BodyTooLargeError,
    StrictModel,
    limit_bytes,
    parse_json,
    refuse,
)


class Inner(StrictModel):
    size: float = 1.0


class Outer(StrictModel):
    name: str
    inner: Inner | None = None
    items: list[Inner] | None = None


BODIES = [
    found[0]
    for router in app._ROUTERS
    for route in router.routes
    if isinstance(route, APIRoute) and (found := body_model_of(route)) is not None
]


def nested(schema: Any, kind: str) -> Iterator[dict[str, Any]]:
    """The schemas of a kind in a pydantic schema."""
    if isinstance(schema, dict):
        if schema.get("type") == kind:
            yield schema
        for inner in schema.values():
            yield from nested(inner, kind)
    elif isinstance(schema, list):
        for inner in schema:
            yield from nested(inner, kind)


def refusal_of(body: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        parse_json(body, Outer)
    return caught.value


def test_nulls_are_absent_at_every_depth() -> None:
    outer = parse_json(b'{"name": "a", "inner": {"size": null}, "items": null}', Outer)
    assert outer == Outer(name="a", inner=Inner())


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{}", "name", "Missing required parameter: 'name'."),
        (b'{"name": null}', "name", "Missing required parameter: 'name'."),
        (b'{"name": "a", "x": 1}', "x", "Unrecognized request argument supplied: x"),
        (b'{"name": "a", "items": [{"x": 1}]}', "items[0].x", "Unknown parameter: 'items[0].x'."),
        (b'{"name": "a", "inner": []}', "inner",
         "Invalid type for 'inner': expected an object, but got an array instead."),
        (b'{"name": "a", "inner": {"size": 1e999}}', "inner.size",
         "Invalid type for 'inner.size': expected a finite decimal, but got a decimal instead."),
        (b"5", None, "Invalid body: expected an object, but got an integer instead."),
    ],
)  # fmt: skip
def test_errors_name_the_parameter_as_openai_does(
    body: bytes, param: str | None, message: str
) -> None:
    error = refusal_of(body)
    assert (error.param, error.message) == (param, message)


def test_the_first_wrong_item_ends_the_check_of_a_list() -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"name": "a", "items": [{}, 1, 2, 3]})
    assert [error["loc"] for error in caught.value.errors()] == [("items", 1)]


@pytest.mark.parametrize("model", BODIES)
def test_every_list_of_a_body_ends_its_check_at_the_first_wrong_item(
    model: type[StrictModel],
) -> None:
    lists = list(nested(model.__pydantic_core_schema__, "list"))
    assert all(schema.get("fail_fast") for schema in lists)


@pytest.mark.parametrize("model", BODIES)
def test_every_object_with_keys_of_the_client_is_bounded_or_not_validated(
    model: type[StrictModel],
) -> None:
    for schema in nested(model.__pydantic_core_schema__, "dict"):
        assert (
            "max_length" in schema or schema.get("values_schema", {"type": "any"})["type"] == "any"
        )


def test_of_many_unknown_keys_one_is_reported() -> None:
    keys = {f"k{number}": number for number in range(1000)}
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {}, **keys})
    assert [error["loc"] for error in caught.value.errors()] == [("name",), ("k0",)]


def test_a_long_key_is_truncated() -> None:
    error = refusal_of(b'{"name": "a", "' + b"k" * 10_000 + b'": 1}')
    assert len(error.message) < 200


def test_a_body_that_takes_long_to_parse_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_bodies, "from_json", lambda *_, **__: pytest.fail("parsed"))
    error = refusal_of(b'{"items": [' + b",".join([b"[]"] * 100_000) + b"]}")
    assert error.message.startswith(
        "We could not parse the JSON body of your request: it has too many values: each"
    )


def test_a_long_value_is_truncated() -> None:
    error = refusal_of(b'{"name": "a", "items": [{"size": "' + b"x" * 10_000 + b'"}]}')
    assert len(error.message) < 200


def test_a_body_that_is_too_large_is_not_read_on() -> None:
    sent, taken = [], []

    async def run() -> None:
        async def stream():
            for _ in range(5):
                sent.append(b"xx")
                yield b"xx"

        async for chunk in limit_bytes(stream(), 5):
            taken.append(chunk)

    with pytest.raises(BodyTooLargeError, match="at most 5 bytes, and it has more"):
        anyio.run(run)
    assert (len(sent), len(taken)) == (3, 2)


class Below(StrictModel):
    size: int = 0

    @model_validator(mode="after")
    def _is_small(self) -> Self:
        if self.size > 9:
            refuse("too_big", "'{param}' is too big.", ".size")
        return self


class Above(StrictModel):
    below: list[Below] | None = None


def test_a_validator_may_refuse_a_nested_parameter() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_json(b'{"below": [{}, {"size": 10}]}', Above)
    assert (caught.value.param, caught.value.code) == ("below[1].size", "too_big")
    assert caught.value.message == "'below[1].size' is too big."
    with pytest.raises(InvalidRequestError) as caught:
        parse_json(b'{"size": 10}', Below)
    assert caught.value.param == "size"


def test_large_bodies_are_parsed_one_at_a_time_with_pauses() -> None:
    spans: list[tuple[float, float]] = []

    def parse(_: int) -> None:
        began = time.monotonic()
        computed = time.thread_time()
        while time.thread_time() < computed + 0.02:  # as a parser does
            pass
        spans.append((began, time.monotonic()))

    bodies = json_bodies._OneByOne()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda n: bodies.call(lambda: parse(n)), range(4)))
    pauses = [after - before for (_, before), (after, _) in pairwise(spans)]
    assert min(pauses) > 0.02
