"""The attacks: each an async function that sends requests and returns what it got."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2

from benchmarks.reply_prompts import digits

MIB = 2**20
MODEL = "gpt-3.5-turbo"
CONTEXT = 7900  # tokens of a long prompt
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
_JSON = {"Content-Type": "application/json"}
_HOLD = 12.0  # seconds that slow and idle connections are held


@dataclass(frozen=True, slots=True)
class Target:
    """A server under attack: a client with the offender's key, and the address for raw bytes."""

    client: httpx2.AsyncClient
    host: str
    port: int
    key: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got: a status, or a word; and the message."""

    status: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Attack:
    """A row of the table.

    Attributes:
        run: Sends the requests once.
        descriptors: The number that the server may have open; None: as many as usual.
    """

    name: str
    run: Callable[[Target], Awaitable[list[Answer]]]
    descriptors: int | None = None


async def post(target: Target, path: str, content: bytes) -> Answer:
    """Send one JSON body."""
    return await _answer(target.client.post(path, content=content, headers=_JSON))


async def _answer(response: Awaitable[httpx2.Response]) -> Answer:
    try:
        got = await response
    except httpx2.HTTPError as error:
        return Answer("closed", type(error).__name__)
    try:
        return Answer(str(got.status_code), got.json()["error"]["message"][:80])
    except (ValueError, KeyError, TypeError):  # no error
        return Answer(str(got.status_code))


async def _all(answers: Sequence[Awaitable[Answer]]) -> list[Answer]:
    return list(await asyncio.gather(*answers))


def _chat(content: str, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 16, **fields}).encode()


def _filled(head: bytes, item: bytes, tail: bytes, size: int) -> bytes:
    """A JSON list of many equal items, of about `size` bytes in all."""
    return head + b",".join([item] * (size // (len(item) + 1))) + tail


async def empty_messages(target: Target) -> list[Answer]:
    """16 MiB of empty lists instead of messages."""
    body = _filled(b'{"model":"gpt-3.5-turbo","messages":[', b"[]", b"]}", 16 * MIB - 100)
    return [await post(target, CHAT, body)]


async def wrong_items(target: Target) -> list[Answer]:
    """2 MiB of list items of a wrong kind, in three endpoints at once."""
    size = 2 * MIB
    bodies = {
        CHAT: (b'{"model":"gpt-3.5-turbo","messages":[', b'{"x":1}', b"]}"),
        RESPONSES: (b'{"model":"gpt-3.5-turbo","input":[', b'{"x":1}', b"]}"),
        "/v1/uploads/upload_none/complete": (b'{"part_ids":[', b"1", b"]}"),
    }
    return await _all([post(target, path, _filled(*parts, size)) for path, parts in bodies.items()])


async def long_prompts(count: int, target: Target) -> list[Answer]:
    """`count` chats at once, each of a prompt that fills most of the context."""
    return await _all(
        [post(target, CHAT, _chat(digits(CONTEXT, random.Random()))) for _ in range(count)]
    )


async def label_alternatives(target: Target) -> list[Answer]:
    """16 labels of 1,000 characters, all of them to be scored."""
    labels = [_text(1000) for _ in range(16)]
    return [await post(target, CHAT, _chat("Which?", labels=labels, alternatives=16))]


async def many_labels(target: Target) -> list[Answer]:
    """10,000 labels of 1,000 characters, fewer where that is more than a body may have."""
    body = _chat("Which?", labels=[_text(1000) for _ in range(10_000)])
    answer = await post(target, CHAT, body)
    if answer.status != "413":
        return [answer]
    return [answer, await post(target, CHAT, _chat("?", labels=[_text(1000) for _ in range(8000)]))]


def _text(characters: int) -> str:
    return random.randbytes(characters // 2).hex()


async def large_schemas(target: Target) -> list[Answer]:
    """Eight schemas: as many optional properties as the context has room for, and far more."""

    def schema(properties: int) -> dict[str, Any]:
        names = [f"p{number}" for number in random.sample(range(10 * properties), properties)]
        return {"type": "object", "properties": {name: {"type": "string"} for name in names}}

    return await _all([_structured(target, schema(count)) for count in [500, 500, 500, 10_000] * 2])


async def exploding_patterns(target: Target) -> list[Answer]:
    """Eight chats of 16 replies each, in patterns that take states without end."""
    letters = random.sample("abcdefgh", 6)
    ends = "|".join(f".*{letter}.{{{size}}}" for size, letter in enumerate(letters, start=12))
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string", "pattern": f"^({ends})$"}},
        "required": ["text"],
    }
    sampling = {"n": 16, "max_tokens": 256, "temperature": 2.0}
    return await _all([_structured(target, schema, **sampling) for _ in range(8)])


def _structured(target: Target, schema: dict[str, Any], **fields: Any) -> Awaitable[Answer]:
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    return post(target, CHAT, _chat("Fill it in.", response_format=form, **fields))


async def many_replies(target: Target) -> list[Answer]:
    """128 replies, each of them sampled from nearly the entire vocabulary."""
    sampling = {"n": 128, "temperature": 2.0, "top_p": 0.99, "max_tokens": 200}
    return [await post(target, CHAT, _chat("Say anything.", **sampling))]


async def embeddings(target: Target) -> list[Answer]:
    """Eight requests of 266,000 tokens each."""

    def body() -> bytes:
        inputs = [random.choices(range(1000, 40_000), k=8060) for _ in range(33)]
        return json.dumps({"model": "text-embedding-3-small", "input": inputs}).encode()

    return await _all([post(target, "/v1/embeddings", body()) for _ in range(8)])


async def foreign_model(name: str, target: Target) -> list[Answer]:
    """Eight chats with a repository of the hub."""
    body = _chat("banana", model=name)
    return await _all([post(target, CHAT, body) for _ in range(8)])


async def grader(target: Target) -> list[Answer]:
    """A template that occurs 600,000 times, over a reply that must be parsed for each."""
    body = {
        "grader": {
            "type": "text_similarity",
            "name": "similar",
            "input": "{{sample.output_json.a}}" * 600_000,
            "reference": "x",
            "evaluation_metric": "fuzzy_match",
        },
        "model_sample": json.dumps({"a": "", "b": list(range(50_000))}),
        "item": {},
    }
    answer = await post(target, "/v1/fine_tuning/alpha/graders/run", json.dumps(body).encode())
    if answer.status != "413":
        return [answer]
    body["grader"]["input"] = body["grader"]["input"][: 24 * 250_000]  # type: ignore[index]
    smaller = json.dumps(body).encode()
    return [answer, await post(target, "/v1/fine_tuning/alpha/graders/run", smaller)]


async def batch_line(target: Target) -> list[Answer]:
    """A batch whose only line has 40 MiB."""
    head = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":'
    line = _filled(head + b'{"model":"gpt-3.5-turbo","messages":[', b"[]", b"]}}", 40 * MIB)
    form = {"files": {"file": ("b.jsonl", line)}, "data": {"purpose": "batch"}}
    try:
        uploaded = await target.client.post("/v1/files", **form)
    except httpx2.HTTPError as error:
        return [Answer("closed", type(error).__name__)]
    if uploaded.is_error:
        return [await _answer(_ready(uploaded))]
    file = uploaded.json()["id"]
    body = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    return [await post(target, "/v1/batches", json.dumps(body).encode())]


async def _ready(response: httpx2.Response) -> httpx2.Response:
    return response


async def first_line(target: Target) -> list[Answer]:
    """A training file whose first line has 16 MiB."""
    line = _filled(b'{"messages":[', b"[]", b"]}", 16 * MIB)
    form = {"files": {"file": ("t.jsonl", line)}, "data": {"purpose": "fine-tune"}}
    return [await _answer(target.client.post("/v1/files", **form))]


async def idle_connections(target: Target) -> list[Answer]:
    """300 connections without a byte."""
    return await _all([_raw(target, b"") for _ in range(300)])


async def slow_bodies(target: Target) -> list[Answer]:
    """64 bodies and 64 heads that come byte by byte."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer {target.key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    return await _all(
        [_raw(target, chunked, b"1\r\n \r\n", 0.5) for _ in range(64)]
        + [_raw(target, head + b"X-Slow: ", b"x", 0.5) for _ in range(64)]
    )


async def endless_body(target: Target) -> list[Answer]:
    """A body of 4 GiB, with a key that is refused."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer none\r\n"
        f"Content-Type: application/json\r\nContent-Length: {2**32}\r\n\r\n"
    )
    return [await _raw(target, head.encode(), b" " * 2**18)]


async def _raw(target: Target, first: bytes, again: bytes = b"", pause: float = 0.0) -> Answer:
    """Send bytes on a connection of its own, some of them again and again, and await a status."""
    try:
        reader, writer = await asyncio.open_connection(target.host, target.port)
    except OSError as error:
        return Answer("not connected", type(error).__name__)

    async def send() -> None:
        writer.write(first)
        while again:
            await writer.drain()
            writer.write(again)
            await asyncio.sleep(pause)

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(_HOLD):
            line = await reader.readline()
        return Answer(line.split()[1].decode()) if line else Answer("closed")
    except TimeoutError:
        return Answer("held", f"no answer in {_HOLD:g} s")
    except OSError as error:
        return Answer("closed", type(error).__name__)
    finally:
        sending.cancel()
        writer.close()


ATTACKS = [
    Attack("empty messages", empty_messages),
    Attack("wrong items", wrong_items),
    Attack("a long prompt", partial(long_prompts, 1)),
    Attack("4 long prompts", partial(long_prompts, 4)),
    Attack("8 long prompts", partial(long_prompts, 8)),
    Attack("label alternatives", label_alternatives),
    Attack("many labels", many_labels),
    Attack("large schemas", large_schemas),
    Attack("exploding patterns", exploding_patterns),
    Attack("many replies", many_replies),
    Attack("embeddings", embeddings),
    Attack("silent hub", partial(foreign_model, "silent/model")),
    Attack("grader", grader),
    Attack("idle connections", idle_connections, descriptors=256),
    Attack("endless template", partial(foreign_model, "stalls/template")),
    Attack("absurd config", partial(foreign_model, "stalls/config")),
    Attack("tokenizer bomb", partial(foreign_model, "stalls/tokenizer")),
    Attack("batch line", batch_line),
    Attack("first line", first_line),
    Attack("slow bodies", slow_bodies),
    Attack("endless body", endless_body),
]
BY_NAME = {attack.name: attack for attack in ATTACKS}
