"""Unread bodies: what a client still sends after its request was answered, for example refused.

Many clients read a response only once they have sent the body, and lose it if the connection is
closed before. So a bounded rest is read and dropped. A connection with more is closed by
`h11_protocol`, without reading on.
"""

from collections.abc import Mapping

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UNREAD_BYTES = 16 * 1024 * 1024  # also a JSON body of twice the largest size is told why
UNREAD_SECONDS = 10.0


class UnreadBodyMiddleware:
    """ASGI middleware that reads the rest of a body before it ends the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else {}
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body = _Body(receive, headers)

        async def send_and_drain(message: Message) -> None:
            if body.ended:
                await send(message)
            elif message["type"] == "http.response.start":
                if not body.ends_soon:  # a client must not use this connection again
                    MutableHeaders(scope=message)["connection"] = "close"
                await send(message)
            elif message.get("more_body"):
                await send(message)
            else:
                await send({**message, "more_body": True})  # before the wait for the client
                await body.drain()
                await send({"type": "http.response.body"})

        await self._app(scope, body.receive, send_and_drain)


class _Body:
    """A request's body as it is received."""

    def __init__(self, receive: Receive, headers: Mapping[str, str]) -> None:
        self._receive = receive
        length = headers.get("content-length")
        self._bytes_left = None if length is None else int(length)
        self._is_held_back = "expect" in headers  # until the application reads it
        self.ended = False

    @property
    def ends_soon(self) -> bool:
        """Whether its end is within what is read of an unread body."""
        has_end = self._bytes_left is not None and self._bytes_left <= MAX_UNREAD_BYTES
        return has_end and not self._is_held_back

    async def receive(self) -> Message:
        self._is_held_back = False
        message = await self._receive()
        if self._bytes_left is not None:
            self._bytes_left -= len(message.get("body", b""))
        self.ended = not message.get("more_body", False)  # also when the client has disconnected
        return message

    async def drain(self) -> None:
        """Read to the end of the body, or of what is read of it."""
        size = 0
        with anyio.move_on_after(UNREAD_SECONDS):
            while not (self.ended or self._is_held_back) and size <= MAX_UNREAD_BYTES:
                size += len((await self.receive()).get("body", b""))
