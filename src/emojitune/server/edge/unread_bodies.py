"""Unread bodies: what a client still sends after its request was answered, for example refused.

Many clients read a response only once they have sent the body, and lose it if the connection is
closed before. So a bounded rest is read and dropped. A connection with more is closed by
`h11_protocol`, without reading on.
"""

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UNREAD_BYTES = 16 * 1024 * 1024  # the largest JSON body
UNREAD_SECONDS = 10.0


class UnreadBodyMiddleware:
    """ASGI middleware that reads the rest of a body before it ends the response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _sends_a_body(scope):
            await self._app(scope, receive, send)
            return
        body = _Body(receive)

        async def send_and_drain(message: Message) -> None:
            is_last = message["type"] == "http.response.body" and not message.get("more_body")
            if not is_last or body.ended:
                await send(message)
                return
            await send({**message, "more_body": True})  # before the wait for the client
            await body.drain()
            await send({"type": "http.response.body"})

        await self._app(scope, body.receive, send_and_drain)


class _Body:
    """A request's body as it is received."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.ended = not message.get("more_body", False)  # also when the client has disconnected
        return message

    async def drain(self) -> None:
        """Read to the end of the body, or of what is read of it."""
        size = 0
        with anyio.move_on_after(UNREAD_SECONDS):
            while not self.ended and size <= MAX_UNREAD_BYTES:
                size += len((await self.receive()).get("body", b""))


def _sends_a_body(scope: Scope) -> bool:
    """Whether the client sends a body unasked."""
    headers = Headers(scope=scope)
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return has_body and "expect" not in headers
