"""Chat completions, plain and streamed."""

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails

from emojitune import __version__
from emojitune.chat.reply import Alternative, Delta, Usage
from emojitune.errors import EmojituneError
from emojitune.server import models
from emojitune.server.chat_request import ChatRequest
from emojitune.server.errors import error_object
from emojitune.server.exchange import Exchange
from emojitune.server.replies import encode, reply
from emojitune.server.requests import json_body
from emojitune.server.services import Services, Shared
from emojitune.server.streaming import EventStream, begin, while_connected
from emojitune.store.ids import new_id, now

router = APIRouter(prefix="/v1/chat/completions")

_LEAST_LOGPROB = -9999.0  # minus infinity is no JSON


@dataclass(frozen=True, slots=True)
class Head:
    """What a completion and all of its chunks have in common."""

    model: str
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=now)

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": f"fp_emojitune_{__version__}",
            "moderation": None,
        }


@router.post("")
async def create(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    services: Shared,
) -> Response:
    head = Head(models.full_name(body.model))
    respond = _streamed if body.stream else _whole
    return await while_connected(request, respond(head, body, services))


async def _whole(head: Head, body: ChatRequest, services: Services) -> Response:
    exchange = Exchange()
    try:
        await begin(exchange, body.model, body.prompt, body.parameters, services)
        choices = [_Choice(index) for index in range(body.n)]
        async for event in exchange.events():
            if isinstance(event, Usage):
                return reply(_completion(head, body, choices, event))
            choices[event.index].add(event)
    finally:
        exchange.close()
    raise AssertionError("a model's last word is its usage")


async def _streamed(head: Head, body: ChatRequest, services: Services) -> Response:
    exchange = Exchange()
    try:
        await begin(exchange, body.model, body.prompt, body.parameters, services)
        # The first word is awaited, so that an error before it is an ordinary HTTP error.
        events = exchange.events()
        first = await anext(events)
    except BaseException:
        exchange.close()
        raise
    return EventStream(_frames(head, body, first, events), exchange)


@dataclass(slots=True)
class _Choice:
    """A choice as it grows."""

    index: int
    text: str = ""
    finish_reason: str | None = None
    alternatives: tuple[Alternative, ...] = ()

    def add(self, delta: Delta) -> None:
        self.text += delta.text
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.alternatives = delta.alternatives or self.alternatives

    def fields(self) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.text,
            "refusal": None,
            "annotations": [],
        }
        return {
            "index": self.index,
            "message": message,
            "finish_reason": self.finish_reason,
            "logprobs": None,
            **_alternatives(self.alternatives),
        }


def _completion(
    head: Head, body: ChatRequest, choices: list[_Choice], usage: Usage
) -> ChatCompletion:
    return ChatCompletion.model_validate(
        {
            **head.fields("chat.completion"),
            "choices": [choice.fields() for choice in choices],
            "usage": _usage(usage),
            "metadata": body.metadata,
        }
    )


async def _frames(
    head: Head, body: ChatRequest, first: Delta | Usage, events: AsyncIterator[Delta | Usage]
) -> AsyncIterator[bytes]:
    fields = head.fields("chat.completion.chunk")
    if body.include_usage:
        fields["usage"] = None  # in every chunk but the last
    for index in range(body.n):
        opening = {"role": "assistant", "content": "", "refusal": None}
        yield _frame({**fields, "choices": [_chunk_choice(index, opening)]})
    event: Delta | Usage = first
    try:
        while isinstance(event, Delta):
            for choice in _chunk_choices(event):
                yield _frame({**fields, "choices": [choice]})
            event = await anext(events)
    except EmojituneError as error:
        yield _data(error_object(error))
        return
    if body.include_usage:
        yield _frame({**fields, "choices": [], "usage": _usage(event)})
    yield b"data: [DONE]\n\n"


def _chunk_choices(delta: Delta) -> Iterator[dict[str, Any]]:
    if delta.text:
        yield _chunk_choice(delta.index, {"content": delta.text})
    if delta.finish_reason is not None:
        end = _chunk_choice(delta.index, {}, delta.finish_reason)
        yield {**end, **_alternatives(delta.alternatives)}


def _chunk_choice(
    index: int, delta: dict[str, Any], finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _alternatives(alternatives: tuple[Alternative, ...]) -> dict[str, Any]:
    """Ours: the likeliest labels, on a choice that was asked for them."""
    if not alternatives:
        return {}
    listed = [
        {"content": alternative.content, "logprob": max(alternative.logprob, _LEAST_LOGPROB)}
        for alternative in alternatives
    ]
    return {"alternatives": listed}


def _usage(usage: Usage) -> CompletionUsage:
    return CompletionUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=0),
    )


def _frame(fields: dict[str, Any]) -> bytes:
    chunk = ChatCompletionChunk.model_validate(fields)
    return _data(chunk.model_dump(exclude_unset=True))


def _data(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + encode(payload) + b"\n\n"
