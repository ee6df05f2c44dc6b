"""uvicorn's HTTP/1.1 connection, which refuses malformed HTTP with OpenAI's error object.

Such a request never reaches the application. Knows nothing about the content of requests.
"""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from emojitune.errors import InvalidRequestError
from emojitune.server.http.errors import error_object
from emojitune.server.http.json_responses import encode_json

MAX_HEAD_BYTES = 64 * 1024

# Read from a connection at once. A chunk of a chunked body may have one byte, and the event loop
# must not parse for longer than some milliseconds; a body of a known length needs no parsing.
_READ_BYTES = 4 * 1024
_READ_BYTES_OF_KNOWN_LENGTH = 64 * 1024

_MALFORMED = (
    "The request could not be read as HTTP/1.1: a line, a header or a length of it is malformed, "
    "it has both Content-Length and Transfer-Encoding, or its headers are too large "
    f"(at most {MAX_HEAD_BYTES} bytes)."
)
_BODY_BYTES = 8 * 1024  # of a body, that must come within a time limit

# For which what still arrives after a refusal is dropped. To close a connection at once would reset
# it, and a client that is still sending would lose the words.
_LINGER_SECONDS = 2.0
_Wait = Literal["handshake", "head", "body", "reading"]


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """The seconds for which a connection waits for its client.

    Args:
        handshake: Until the end of TLS's handshake.
        head: Until a request's head is complete, from the beginning of the connection or the end
            of the response before.
        body: For the next 8 KiB of a body, or its end.
        reading: Until the client reads some more of a response.
    """

    handshake: float = 10
    head: float = 20
    body: float = 30
    reading: float = 60


DEFAULT_WAIT_LIMITS = WaitLimits()


class StrictH11Protocol(H11Protocol):
    """A connection to a client."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _StrictConnection(h11.SERVER, MAX_HEAD_BYTES)
        self.opening: asyncio.Task[None] | None = None
        self.waiting_since = self.loop.time()
        self._received_bytes = 0
        self._responses = 0
        self._is_refused = False
        self._last_wait = self._wait()

    @property
    def is_waiting(self) -> bool:
        """Whether the connection still waits for its client, as when it was last watched."""
        return self._last_wait is not None and self._last_wait == self._wait()

    def watch(self, now: float, limits: WaitLimits) -> bool:
        """Whether the connection waits for its client; it is ended if it has waited too long.

        To be called often.
        """
        wait = self._wait()
        if wait != self._last_wait:
            self._last_wait, self.waiting_since = wait, now
        elif wait is not None and now - self.waiting_since > getattr(limits, wait[0]):
            self._time_out(wait[0], getattr(limits, wait[0]))
        return wait is not None

    def abort(self) -> None:
        """End the connection without sending what is left."""
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._set_read_size(_READ_BYTES)
        self._last_wait, self.waiting_since = self._wait(), self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._is_refused or self.transport.is_closing():
            return
        super().data_received(data)
        is_known_length = self.conn.their_state is h11.SEND_BODY and any(
            name == b"content-length" for name, _ in self.headers
        )
        self._set_read_size(_READ_BYTES_OF_KNOWN_LENGTH if is_known_length else _READ_BYTES)

    def on_response_complete(self) -> None:
        self._responses += 1
        if self.conn.their_state is h11.SEND_BODY:  # see unread_bodies.py
            self.transport.close()
        super().on_response_complete()

    def shutdown(self) -> None:
        if self.transport is None:
            self.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request and close the connection: no later byte can be trusted."""
        self._refuse(HTTPStatus.BAD_REQUEST, _MALFORMED)

    def _set_read_size(self, size: int) -> None:
        self.transport.max_size = size  # type: ignore[attr-defined]  # of asyncio's TCP transport

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else a response has begun
            for event in _refusal_events(status, message):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # the application may have the headers, and respond too
            self.cycle.disconnected = True
        self._is_refused = True
        if self.transport.can_write_eof():  # not with TLS
            self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)

    def _wait(self) -> tuple[_Wait, int] | None:
        """What the connection waits for its client to do, and how far that is; None if nothing."""
        if self.transport is None:
            return "handshake", 0
        unsent = self.transport.get_write_buffer_size()
        if unsent or self._is_refused or self.transport.is_closing():
            return "reading", unsent
        if self.conn.their_state is h11.IDLE:
            return "head", self._responses
        if self.conn.their_state is h11.SEND_BODY and not self.flow.read_paused:
            return "body", self._received_bytes // _BODY_BYTES
        return None

    def _time_out(self, wait: _Wait, seconds: float) -> None:
        match wait:
            case "head":
                message = f"The headers of a request must arrive within {seconds:g} seconds."
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)
            case "body":
                message = f"{_BODY_BYTES} bytes of a body must arrive in {seconds:g} seconds."
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, message)
            case _:
                self.abort()


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


def _refusal_events(status: HTTPStatus, message: str) -> tuple[h11.Event, ...]:
    body = encode_json(error_object(InvalidRequestError(message)))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
    return head, h11.Data(data=body), h11.EndOfMessage()
