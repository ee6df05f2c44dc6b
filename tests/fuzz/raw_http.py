"""Bytes that are hardly HTTP: refused with an error object or without a response, never a 5xx."""

import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import schemas
from api_requests import mutated_bytes
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

_LINES = st.sampled_from(
    [
        b"GET /v1/models HTTP/1.1",
        b"POST /v1/chat/completions HTTP/1.1",
        b"POST /v1/files HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"HEAD /v1/models HTTP/1.0",
        b"GET http://other/v1/models HTTP/1.1",
        b"GET /v1/\xff\xfe HTTP/1.1",
        b"CONNECT a:1 HTTP/1.1",
        b"get /v1/models http/1.1",
    ]
)
_HEADERS = st.sampled_from(
    [
        b"Host: a",
        b"Host: a",
        b"Authorization: Bearer sk-test-key",
        b"Authorization: Bearer \xff",
        b"Authorization: Basic x",
        b"Content-Type: application/json",
        b"Content-Type: multipart/form-data; boundary=limit",
        b"Content-Length: 2",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: -1",
        b"Content-Length: 5, 5",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: odd",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"Connection: upgrade, close",
        b"X: " + b"x" * 70_000,
        b" folded",
        b"no colon",
    ]
)
_BODIES = st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n", b"ffffffffffff\r\n{}"])


@st.composite
def cases(draw: DrawFn) -> bytes:
    """Bytes that only a broken client sends."""
    lines = [draw(_LINES), *draw(st.lists(_HEADERS, max_size=6))]
    sent = b"\r\n".join(lines) + b"\r\n\r\n" + draw(_BODIES)
    return draw(mutated_bytes(sent)) if draw(st.booleans()) else sent


def violations(sent: bytes, url: str) -> list[str]:
    """The promises about every response that those to these bytes break."""
    try:
        received = _received(sent, url)
    except TimeoutError:
        return ["the connection is neither answered nor closed"]
    return [
        violation
        for status, body in responses(received, with_bodies=not sent.startswith(b"HEAD"))
        for violation in _violations(status, body)
    ]


def responses(received: bytes, *, with_bodies: bool) -> Iterator[tuple[int, bytes | None]]:
    """Status and body of each response: bytes after a complete request are another one.

    Without bodies only of the first: one to HEAD has no body, one to an unread request has.
    """
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        size = int(length[1]) if length else len(rest)
        yield int(head.split()[1]), rest[:size] if with_bodies else None
        received = rest[size:] if with_bodies else b""


def _violations(status: int, body: bytes | None) -> list[str]:
    if status >= 500 or status < 200:
        return [f"{status}: {(body or b'')[:300]!r}"]
    if status < 400 or body is None:
        return []
    try:
        schemas.check(json.loads(body), "")
    except (AssertionError, LookupError, ValueError) as error:
        return [f"{status}: {error}"]
    return []


def _received(sent: bytes, url: str) -> bytes:
    """Everything that comes back; empty if the connection was cut."""
    address = urlsplit(url)
    try:
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
    except TimeoutError:
        raise
    except OSError:
        return b""
