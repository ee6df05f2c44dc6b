"""An ASGI client: POSTs to our own application without a socket, treated exactly as over HTTP."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message

from emojitune.server.http.caller import Caller


@dataclass(frozen=True, slots=True)
class AsgiResponse:
    """A complete response."""

    status: int
    headers: dict[str, str]
    body: bytes


async def post(app: ASGIApp, project: str, path: str, body: bytes) -> AsgiResponse:
    """Send JSON to `path` for a project.

    To the application, a cancellation of this coroutine is a client that disconnects.
    """
    unsent, response = [body], _ResponseCollector()

    async def receive() -> Message:
        if unsent:
            return {"type": "http.request", "body": unsent.pop(), "more_body": False}
        await asyncio.Event().wait()  # the client stays connected until it has its response
        raise AssertionError("nobody sets that event")

    # No client can set this: a scope that already has a caller comes from here.
    scope = {**_scope(path, body), "caller": Caller(project)}
    await app(scope, receive, response.send)
    return AsgiResponse(response.status, response.headers, bytes(response.body))


def accepts_post(routes: Iterable[BaseRoute], path: str) -> bool:
    """Whether a route takes a POST to this path."""
    scope = _scope(path, b"")
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


class _ResponseCollector:
    """Collects the messages of a response."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            pairs = ((name.decode(), value.decode()) for name, value in message["headers"])
            self.headers = dict(pairs)
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


def _scope(path: str, body: bytes) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": None,
        "server": None,
        "state": {},
    }
