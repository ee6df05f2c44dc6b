"""Server-sent events, and work that is cancelled when its client disconnects."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from emojitune.server.http.json_responses import encode_json


class EventStream(StreamingResponse):
    """Server-sent events; `close` is called when the client has gone, however early."""

    def __init__(self, frames: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(frames, media_type="text/event-stream")
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def event_frame(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event; `event` is its type, where the API names it outside of the data."""
    head = b"" if event is None else b"event: " + event.encode() + b"\n"
    return head + b"data: " + encode_json(data) + b"\n\n"


async def while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response of `work`, which is cancelled if the client disconnects first."""
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
