"""Chat completions, plain and streamed."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, Usage
from emojitune.server.chat.assembler import ChatAssembler, CompletionHeader
from emojitune.server.chat.request import ChatRequest
from emojitune.server.context import Context, RequestContext
from emojitune.server.generation.bridge import Bridge
from emojitune.server.generation.streaming import EventStream, start_generation, while_connected
from emojitune.server.http.errors import error_object
from emojitune.server.http.json_bodies import json_body
from emojitune.server.http.json_responses import encode_json, json_response
from emojitune.server.models.resolver import snapshot_name
from emojitune.store.chat_completions import StoredChatCompletion

router = APIRouter(prefix="/v1/chat/completions")


@router.post("")
async def create(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    context: Context,
) -> Response:
    """Reply to a conversation, at once or piece by piece."""
    head = CompletionHeader(snapshot_name(body.model))
    respond = _streamed if body.stream else _whole
    return await while_connected(request, respond(head, body, context))


async def _whole(head: CompletionHeader, body: ChatRequest, context: RequestContext) -> Response:
    bridge = Bridge()
    assembler = ChatAssembler(head, body)
    try:
        await start_generation(bridge, body.model, body.prompt, body.parameters, context)
        async for event in bridge.events():
            if isinstance(event, Usage):
                completion = assembler.completion(event)
                await _store(completion, body, context)
                return json_response(completion)
            assembler.add(event)
    finally:
        bridge.close()
    raise AssertionError("a model's last word is its usage")


async def _streamed(head: CompletionHeader, body: ChatRequest, context: RequestContext) -> Response:
    bridge = Bridge()
    try:
        await start_generation(bridge, body.model, body.prompt, body.parameters, context)
        # The first word is awaited, so that an error before it is an ordinary HTTP error.
        events = bridge.events()
        first = await anext(events)
    except BaseException:
        bridge.close()
        raise
    return EventStream(_frames(ChatAssembler(head, body), body, first, events, context), bridge)


async def _frames(
    assembler: ChatAssembler,
    body: ChatRequest,
    first: Delta | Usage,
    events: AsyncIterator[Delta | Usage],
    context: RequestContext,
) -> AsyncIterator[bytes]:
    for chunk in assembler.opening():
        yield _frame(chunk)
    event: Delta | Usage = first
    try:
        while isinstance(event, Delta):
            for chunk in assembler.add(event):
                yield _frame(chunk)
            event = await anext(events)
    except EmojituneError as error:
        yield _data(error_object(error))
        return
    await _store(assembler.completion(event), body, context)
    for chunk in assembler.end(event):
        yield _frame(chunk)
    yield b"data: [DONE]\n\n"


async def _store(completion: ChatCompletion, body: ChatRequest, context: RequestContext) -> None:
    """Keep a completion that asks for it, before its client can ask for it back."""
    if not body.store:
        return
    stored = StoredChatCompletion(
        id=completion.id,
        created_at=completion.created,
        model=completion.model,
        metadata=body.metadata,
        completion=completion.model_dump(exclude_unset=True),
        messages=[
            message.to_stored(f"{completion.id}-{number}")
            for number, message in enumerate(body.messages)
        ],
    )
    await to_thread.run_sync(context.chat_completions.add, stored)


def _frame(chunk: ChatCompletionChunk) -> bytes:
    return _data(chunk.model_dump(exclude_unset=True))


def _data(payload: Mapping[str, Any]) -> bytes:
    return b"data: " + encode_json(payload) + b"\n\n"
