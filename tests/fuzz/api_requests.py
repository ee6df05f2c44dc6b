"""Requests generated from the server's own description, valid ones and mutated ones.

An id is written as `@kind`, which is replaced when the request is sent.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_from_bytes

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy
from known_values import KNOWN_VALUES
from schema_values import Schema, SchemaStrategies, any_value, mutated, texts

# Path parameter to the kind of its id.
KINDS = {
    "file_id": "file",
    "upload_id": "upload",
    "job_id": "job",
    "model": "model",
    "name": "model",
    "permission_id": "permission",
    "completion_id": "completion",
    "response_id": "response",
    "batch_id": "batch",
}
_CURSORS = st.sampled_from(["@file", "@job", "@completion", "@response", "@batch", "@model", ""])
_HEADERS: Mapping[str, SearchStrategy[bytes]] = {
    "content-type": st.sampled_from(
        [b"application/json; charset=utf-16", b"text/plain", b"multipart/form-data", b"\xff", b""]
    ),
    "idempotency-key": st.one_of(st.binary(max_size=300), st.sampled_from([b"a", b"\xe9", b"1"])),
    "x-stainless-retry-count": st.sampled_from([b"1", b"-1", b"999", b"\xb2", b"x"]),
    "range": st.sampled_from([b"bytes=0-1", b"bytes=5-2", b"bytes=-3", b"x", b"bytes=0-1,3-4"]),
    "if-range": st.sampled_from([b"x", b"\xff", b'W/"x"']),
    "accept": st.sampled_from([b"text/event-stream", b"\xff"]),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path and the schema of its body, None if it has no body."""

    method: str
    path: str
    parameters: Sequence[Schema]
    body: Schema | None


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request with `@kind` for ids.

    Attributes:
        path: Percent-encoded, except for ids.
        content: The body: bytes, or a value to be sent as JSON.
        chunk_size: Bytes of each chunk in which the body arrives.
        template: The path as in the description.
    """

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()
    content: Any = b""
    chunk_size: int = 2**20
    template: str = ""


def operations(document: Schema) -> Iterator[Operation]:
    """All operations of a description."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            body = content.get("application/json", {}).get("schema")
            yield Operation(method.upper(), path, operation.get("parameters", ()), body)


def described(document: Schema) -> SearchStrategy[ApiRequest]:
    """Requests for every operation whose body is JSON or absent."""
    strategies = SchemaStrategies(document["components"]["schemas"], KNOWN_VALUES)
    chosen = [one for one in operations(document) if not _takes_form(document, one)]
    with_body = [one for one in chosen if one.body is not None]  # where most can go wrong
    return st.sampled_from([*chosen, *with_body, *with_body]).flatmap(
        lambda one: _request(one, strategies)
    )


def corrupted(document: Schema) -> SearchStrategy[ApiRequest]:
    """Requests whose body is mutated JSON."""
    strategies = SchemaStrategies(document["components"]["schemas"], KNOWN_VALUES)
    chosen = [one for one in operations(document) if one.body is not None]

    @st.composite
    def made(draw: DrawFn) -> ApiRequest:
        operation = draw(st.sampled_from(chosen))
        body = json.dumps(draw(strategies.value(operation.body or {}))).encode()
        return ApiRequest(
            operation.method,
            draw(_path(operation)),
            content=draw(mutated_bytes(body)),
            chunk_size=draw(st.sampled_from([1, 7, 2**20])),
        )

    return made()


@st.composite
def mutated_bytes(draw: DrawFn, content: bytes) -> bytes:
    """Bytes with pieces removed, repeated or inserted."""
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(content)))
        last = draw(st.integers(first, min(len(content), first + 20)))
        piece = draw(st.one_of(st.binary(max_size=4), st.sampled_from(_PIECES)))
        kept = content[first:last] if draw(st.booleans()) else b""
        content = content[:first] + kept + piece + content[last:]
    return content


_PIECES = (
    b"\xff",
    b"\xef\xbb\xbf",
    b'"\\ud800"',
    b"NaN",
    b"1e999",
    b"-" + b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 300,
    b"\0",
    b"\r\n",
    b"\r\n\r\n",
)


def _takes_form(document: Schema, operation: Operation) -> bool:
    described = document["paths"][operation.path][operation.method.lower()]
    return "multipart/form-data" in described.get("requestBody", {}).get("content", {})


@st.composite
def _request(draw: DrawFn, operation: Operation, strategies: SchemaStrategies) -> ApiRequest:
    content: Any = b""
    if operation.body is not None:
        content = draw(mutated(strategies.value(operation.body)))
    names = draw(st.lists(st.sampled_from(sorted(_HEADERS)), max_size=2, unique=True))
    few = draw(st.integers(0, 3)) == 0
    headers = tuple((name, draw(_HEADERS[name])) for name in names) if few else ()
    return ApiRequest(
        operation.method,
        draw(_path(operation)),
        draw(_query(operation, strategies)),
        headers,
        content,
        template=operation.path,
    )


@st.composite
def _path(draw: DrawFn, operation: Operation) -> str:
    path = operation.path
    for parameter in operation.parameters:
        if parameter["in"] == "path":
            name = parameter["name"]
            odd = draw(st.integers(0, 9)) == 0
            step = quote(_bytes(draw(texts)), safe="") if odd else f"@{KINDS[name]}"
            path = path.replace(f"{{{name}}}", step)
    return path


@st.composite
def _query(draw: DrawFn, operation: Operation, strategies: SchemaStrategies) -> str:
    """Percent-encoded; its bytes may not be UTF-8."""
    own = [one for one in operation.parameters if one["in"] == "query"]
    pairs = []
    for _ in range(draw(st.integers(0, 3)) if own else 0):
        parameter = draw(st.sampled_from(own))
        right = st.one_of(strategies.value(parameter["schema"]), _CURSORS)
        value = draw(st.one_of(right, right, any_value))
        raw = draw(st.binary(max_size=3)) if draw(st.integers(0, 9)) == 0 else _bytes(value)
        pairs.append(f"{quote(parameter['name'])}={quote_from_bytes(raw)}")
    return "&".join(pairs)


def _bytes(value: Any) -> bytes:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "surrogatepass")
