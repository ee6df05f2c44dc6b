"""HTTP on a real socket: ambiguous or oversized heads, and bodies that nobody reads."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx2
import pytest
from servers import KEY, RunningServer

from emojitune.server.edge.h11_protocol import MAX_HEAD_BYTES
from emojitune.server.edge.unread_bodies import MAX_UNREAD_BYTES
from emojitune.server.http.json_bodies import MAX_JSON_BYTES

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-test-key\r\n"
MIB = 1024 * 1024


@pytest.fixture
def connection(server: RunningServer) -> Iterator[socket.socket]:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as opened:
        yield opened


def status(connection: socket.socket) -> int:
    """The status of the next response."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, "closed without a response"
        received += chunk
    return int(received.split()[1])


@pytest.mark.parametrize(
    "lengths",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: 2, 3\r\n",
        b"Content-Length: +2\r\n",
        b"Content-Length: 2.0\r\n",
        b"Content-Length: 0x2\r\n",
        b"Content-Length: \r\n",
        b"Content-Length: " + b"9" * 21 + b"\r\n",
        b"Content-Length : 2\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ],
)
def test_a_request_with_an_ambiguous_length_is_refused(
    connection: socket.socket, lengths: bytes
) -> None:
    """A proxy in front could take its body for another request (request smuggling)."""
    connection.sendall(
        POST + lengths + b"\r\n2\r\n{}\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    )
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert "length of it is malformed" in json.loads(body)["error"]["message"]


def test_http_1_0_has_no_transfer_encoding(connection: socket.socket) -> None:
    head = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
    assert status(connection) == 400


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize(("size", "expected"), [(MAX_HEAD_BYTES, 200), (MAX_HEAD_BYTES + 1, 400)])
def test_a_head_may_have_64_kib_however_it_is_sent(
    connection: socket.socket, size: int, expected: int, pieces: int
) -> None:
    start = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: "
    head = start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"
    step = -(-size // pieces)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for place in range(0, size, step):
        connection.sendall(head[place : place + step])
    assert status(connection) == expected


def test_a_body_that_is_too_large_by_its_length_is_refused_at_once(
    connection: socket.socket,
) -> None:
    connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % (MAX_JSON_BYTES + 1))
    assert status(connection) == 413


def test_a_body_is_not_sent_by_a_client_that_asks_before(connection: socket.socket) -> None:
    length = b"Content-Length: %d\r\n" % (MAX_JSON_BYTES + 1)
    connection.sendall(POST + length + b"Expect: 100-continue\r\n\r\n")
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("key", [KEY, "sk-wrong"])
def test_an_endless_body_is_read_for_some_megabytes_only(
    connection: socket.socket, key: str
) -> None:
    """They are read for clients that do not read the response before they have sent all."""
    chunk = b"100000\r\n" + b" " * MIB + b"\r\n"
    connection.sendall(POST.replace(KEY.encode(), key.encode()))
    connection.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
    sent = 0
    with suppress(ConnectionError):
        while sent < 1024 * MIB:
            connection.sendall(chunk)
            sent += MIB
    most = MAX_JSON_BYTES + MAX_UNREAD_BYTES if key == KEY else MAX_UNREAD_BYTES
    assert most - MIB <= sent <= most + 32 * MIB  # in the buffers of the two sockets


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize(("key", "expected"), [(KEY, 413), ("sk-wrong", 401)])
def test_a_client_that_sends_first_and_reads_later_gets_the_refusal(
    server: RunningServer, close: bool, key: str, expected: int
) -> None:
    address = urlsplit(server.url)
    client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    if close:
        headers["Connection"] = "close"
    # One byte too many, and not by its length.
    body = (b" " * MIB for _ in range(MAX_JSON_BYTES // MIB + 1))
    client.request("POST", "/v1/chat/completions", body, headers, encode_chunked=True)
    response = client.getresponse()
    assert response.status == expected
    json.loads(response.read())
    client.close()


def test_a_refused_body_that_ended_leaves_its_connection_open(server: RunningServer) -> None:
    address = urlsplit(server.url)
    client = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    client.connect()
    opened = client.sock
    for _ in range(2):
        client.request("POST", "/v1/chat/completions", b" " * MIB)
        response = client.getresponse()
        assert response.status == 401
        response.read()
        assert client.sock is opened
    client.close()


def test_the_official_http_client_gets_the_refusal_of_a_large_body(server: RunningServer) -> None:
    with httpx2.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for size in (17, 17, 64):  # each on a connection that works
            response = client.post("/chat/completions", content=b" " * (size * MIB))
            assert response.status_code == 413
