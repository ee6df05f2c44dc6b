"""Time limits of a connection, by a clock of the test's own."""

import asyncio
from collections.abc import Iterator
from typing import Any
from unittest.mock import create_autospec

import pytest
import uvicorn
from uvicorn.server import ServerState

from emojitune.server.edge import h11_protocol
from emojitune.server.edge.h11_protocol import StrictH11Protocol, WaitLimits

LIMITS = WaitLimits(handshake=10, head=20, body=30, reading=60)
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


class Connection:
    """A connection without a socket."""

    def __init__(self, loop: asyncio.AbstractEventLoop, app: Any = None) -> None:
        self.loop = loop
        self.transport = create_autospec(asyncio.Transport, instance=True)
        self.transport.is_closing.return_value = False
        self.transport.get_write_buffer_size.return_value = 0
        self.transport.can_write_eof.return_value = True
        self.protocol = StrictH11Protocol(uvicorn.Config(app or _silent), ServerState(), {}, loop)
        self.protocol.connection_made(self.transport)
        self._start = self.protocol.waiting_since

    def watch(self, seconds: float) -> bool:
        return self.protocol.watch(self._start + seconds, LIMITS)

    @property
    def ended(self) -> bool:
        transport = self.transport
        return any(end.called for end in (transport.write_eof, transport.close, transport.abort))


async def _silent(_scope: object, _receive: object, _send: object) -> None:
    await asyncio.Event().wait()


@pytest.fixture
def connection() -> Iterator[Connection]:
    loop = asyncio.new_event_loop()
    yield Connection(loop)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def test_bytes_of_a_head_do_not_extend_its_time(connection: Connection) -> None:
    for second in range(20):
        connection.protocol.data_received(HEAD[second : second + 1])
        assert connection.watch(second)
    assert not connection.ended
    connection.watch(21)
    assert connection.ended


def test_a_body_has_its_time_for_every_8_kib(connection: Connection) -> None:
    connection.protocol.data_received(HEAD)
    for second in range(0, 120, 20):
        connection.protocol.data_received(b" " * 8192)
        assert connection.watch(second)
    assert not connection.ended
    connection.protocol.data_received(b" " * 100)
    connection.watch(100 + 31)
    assert connection.ended


def test_a_response_has_its_time_while_it_is_read(connection: Connection) -> None:
    for second in range(0, 200, 50):
        connection.transport.get_write_buffer_size.return_value = 1000 - second
        assert connection.watch(second)
    assert not connection.ended
    connection.watch(150 + 61)
    assert connection.ended


def test_a_connection_whose_request_is_worked_on_has_no_limit(connection: Connection) -> None:
    connection.protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    for second in (0, 1000, 10_000):
        assert not connection.watch(second)
    assert not connection.ended


@pytest.mark.parametrize("half_closes", [True, False])  # TLS does not
def test_a_refused_client_has_time_to_read_why(
    connection: Connection, half_closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h11_protocol, "_LINGER_SECONDS", 0.01)
    connection.transport.can_write_eof.return_value = half_closes
    connection.protocol.data_received(b"no HTTP\r\n\r\n")
    assert connection.transport.write_eof.called == half_closes
    assert not connection.transport.close.called
    connection.loop.run_until_complete(asyncio.sleep(0.05))
    assert connection.transport.close.called


def test_a_response_that_has_begun_ends_with_a_malformed_body() -> None:
    loop, malformed, responded = asyncio.new_event_loop(), asyncio.Event(), asyncio.Event()

    async def respond(_scope: object, _receive: object, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await malformed.wait()
        await send({"type": "http.response.body", "body": b"b"})
        responded.set()

    connection = Connection(loop, respond)
    head = b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.protocol.data_received(head)
    loop.run_until_complete(asyncio.sleep(0))
    written = connection.transport.write.call_count
    connection.protocol.data_received(b"no length\r\n")
    malformed.set()
    loop.run_until_complete(asyncio.wait_for(responded.wait(), 5))
    assert connection.transport.write.call_count == written
    loop.close()
