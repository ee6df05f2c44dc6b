"""ASGI middleware that compares all raw responses of a test's server with their schemas."""

import json
from collections.abc import Iterator
from typing import Any

import schemas
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class SchemaCheckMiddleware:
    """Passes all messages on unchanged, and collects the differences in `violations`."""

    violations: list[str] = []  # noqa: RUF012  one for all servers: conftest.py checks each test

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        kind, content = "", b""

        async def send_and_check(message: Message) -> None:
            nonlocal kind, content
            if message["type"] == "http.response.start":
                kind = Headers(raw=message["headers"]).get("content-type", "")
            elif kind.startswith(("application/json", "text/event-stream")):
                content += message.get("body", b"")
                if not message.get("more_body", False):
                    self._check(scope["path"], kind, content)
            await send(message)

        await self._app(scope, receive, send_and_check)

    def _check(self, path: str, kind: str, content: bytes) -> None:
        try:
            for reply in json_objects(kind, content):
                schemas.check(reply, path)
        except (AssertionError, LookupError, ValueError) as error:
            self.violations.append(str(error))


def json_objects(kind: str, content: bytes) -> Iterator[dict[str, Any]]:
    """The objects of a response: its body, or those in the frames of a stream."""
    if kind == "application/json":
        yield json.loads(content, parse_constant=_refuse)
        return
    for frame in content.decode().split("\n\n"):
        for line in frame.splitlines():
            assert line.startswith(("data: ", "event: ", ":")), f"a stream with the line {line!r}"
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line.removeprefix("data: "), parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
