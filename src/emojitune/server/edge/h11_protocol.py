"""uvicorn's HTTP/1.1 connection, which refuses malformed HTTP with OpenAI's error object.

Such a request never reaches the application. Knows nothing about the content of requests.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from emojitune.errors import InvalidRequestError
from emojitune.server.http.errors import error_object
from emojitune.server.http.json_responses import encode_json

MAX_HEAD_BYTES = 64 * 1024

# Read from a connection at once, so that the event loop never parses for longer than some
# milliseconds: a chunk of a chunked body may have one byte.
_READ_BYTES = 16 * 1024

_MESSAGE = (
    "The request could not be read as HTTP/1.1: a line, a header or a length of it is malformed, "
    "it has both Content-Length and Transfer-Encoding, or its headers are too large "
    f"(at most {MAX_HEAD_BYTES} bytes)."
)


class StrictH11Protocol(H11Protocol):
    """A connection to a client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _StrictConnection(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.max_size = _READ_BYTES  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)

    def on_response_complete(self) -> None:
        if self.conn.their_state is h11.SEND_BODY:  # see unread_bodies.py
            self.transport.close()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request and close the connection: no later byte can be trusted."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else a response has begun
            for event in _bad_request_events():
                self.transport.write(self.conn.send(event) or b"")
            if self.cycle is not None:  # the application may have the headers, and respond too
                self.cycle.disconnected = True
        self.transport.close()


class _StrictConnection(h11.Connection):
    """h11's connection, which also refuses what proxies could read as another request."""

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request):
            _require_one_length(event)
            _require_small_head(event)
        return event


def _require_one_length(request: h11.Request) -> None:
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names and (
        b"content-length" in names or request.http_version < b"1.1"
    ):
        raise h11.RemoteProtocolError("ambiguous length of the body")


def _require_small_head(request: h11.Request) -> None:
    """Bound a head that came at once: h11 bounds only incomplete ones."""
    lines = [request.method + request.target + b"  HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers]
    if sum(len(line) + 2 for line in lines) + 2 > MAX_HEAD_BYTES:
        raise h11.RemoteProtocolError("too large a head")


def _bad_request_events() -> tuple[h11.Event, ...]:
    body = encode_json(error_object(InvalidRequestError(_MESSAGE)))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
    return head, h11.Data(data=body), h11.EndOfMessage()
