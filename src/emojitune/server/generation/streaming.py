"""What chat completions and responses share: a reply in the making, and who waits for it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from emojitune.dataset.example import Message
from emojitune.inference.types import ChatParameters, InferenceModel
from emojitune.server.context import RequestContext
from emojitune.server.generation.bridge import Bridge
from emojitune.server.models.resolver import load_chat_model


class EventStream(StreamingResponse):
    """Server-sent events; the model stops when the client has gone, however early."""

    def __init__(self, frames: AsyncIterator[bytes], bridge: Bridge) -> None:
        super().__init__(frames, media_type="text/event-stream")
        self._bridge = bridge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._bridge.close()


async def start_generation(
    bridge: Bridge,
    model: str,
    messages: Sequence[Message],
    parameters: ChatParameters,
    context: RequestContext,
) -> None:
    """Load the model that a request names, and let it begin to reply to the caller's project."""

    def load() -> InferenceModel:
        return load_chat_model(model, context)

    owned = replace(parameters, owner=context.project)
    await bridge.start(load, messages, owned, context.load_limiter)


async def while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that `work` makes; given up when the client hangs up before."""
    task = asyncio.create_task(work)
    disconnection = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait([task, disconnection], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=499)  # read by nobody
    finally:
        disconnection.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
