"""Bytes on a connection that are hardly HTTP: refused in words, or not answered; never a 5xx."""

import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import schemas
from asking import spoiled
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
def wires(draw: DrawFn) -> bytes:
    """What a client may send that is no client."""
    lines = [draw(_LINES), *draw(st.lists(_HEADERS, max_size=6))]
    sent = b"\r\n".join(lines) + b"\r\n\r\n" + draw(_BODIES)
    return draw(spoiled(sent)) if draw(st.booleans()) else sent


def faults(sent: bytes, url: str) -> list[str]:
    """What is promised of every answer, and not kept by those to these bytes."""
    try:
        heard = _heard(sent, url)
    except TimeoutError:
        return ["the connection is neither answered nor closed"]
    return [
        fault
        for status, body in answers(heard, with_bodies=not sent.startswith(b"HEAD"))
        for fault in _faults(status, body)
    ]


def answers(heard: bytes, *, with_bodies: bool) -> Iterator[tuple[int, bytes | None]]:
    """Status and body of each answer: bytes behind a whole request are another one.

    Without bodies, of the first alone: HEAD has none, and one that is refused unread has.
    """
    while heard:
        head, _, rest = heard.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: *(\d+)", head)
        size = int(length[1]) if length else len(rest)
        yield int(head.split()[1]), rest[:size] if with_bodies else None
        heard = rest[size:] if with_bodies else b""


def _faults(status: int, body: bytes | None) -> list[str]:
    if status >= 500 or status < 200:
        return [f"{status}: {(body or b'')[:300]!r}"]
    if status < 400 or body is None:
        return []
    try:
        schemas.check(json.loads(body), "")
    except (AssertionError, LookupError, ValueError) as error:
        return [f"{status}: {error}"]
    return []


def _heard(sent: bytes, url: str) -> bytes:
    """All of what comes back, or nothing where the connection was cut before it was heard."""
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
