"""Connections: how many there may be, and how long each may wait for its client.

At the bound, the connection that has waited longest for its client makes room for a new one: idle
connections cannot lock anybody out. When all have requests, a few more get a 503, and others are
closed. uvicorn has no such bound, and asyncio's servers log and retry without a pause once the
process has no file descriptor left.
"""

import asyncio
import logging
import socket
import sys
from asyncio import sslproto
from collections import deque
from contextlib import suppress
from itertools import count

import uvicorn
from starlette.types import ASGIApp

from emojitune.errors import EmojituneError
from emojitune.server.edge.h11_protocol import DEFAULT_WAIT_LIMITS, StrictH11Protocol, WaitLimits
from emojitune.server.edge.unread_bodies import UnreadBodyMiddleware
from emojitune.server.http.errors import error_response

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 1024
_EXCESS_CONNECTIONS = 16  # that are told by a 503
_ACCEPT_RETRY_SECONDS = 0.5
# Read from a TLS connection at once, beside the rest of a record of 16 KiB; asyncio's 256 KiB in
# chunks of one byte would hold the event loop for 300 ms.
_TLS_READ_BYTES = 4 * 1024
_ACCEPTS_AT_ONCE = 32  # before requests proceed, however many connections arrive


def connection_bound() -> int:
    """The number of connections for which this process has file descriptors.

    They may take half of them: the database, files, models and workers need the others. Raises the
    process's limit first, as far as it may.
    """
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_CONNECTIONS
    raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return soft // 2


class BoundedServer(uvicorn.Server):
    """uvicorn's server, which accepts connections itself, within limits."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        max_connections: int = MAX_CONNECTIONS,
        wait_limits: WaitLimits = DEFAULT_WAIT_LIMITS,
    ) -> None:
        super().__init__(config)
        self._max_connections = max_connections
        self._wait_limits = wait_limits
        self._refuse = _refusal(max_connections)
        self._accepting: list[asyncio.Task[None]] = []
        self._waiting: deque[StrictH11Protocol] = deque()  # for their clients, longest first

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        sslproto.SSLProtocol.max_size = _TLS_READ_BYTES
        await super().startup(sockets=[])
        self._accepting = [asyncio.create_task(self._accept(one)) for one in sockets or ()]

    async def on_tick(self, counter: int) -> bool:
        self._watch_connections()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        for number in count(1):
            try:
                accepted, _ = await loop.sock_accept(listener)
            except ConnectionAbortedError:  # the client left before, as some systems report
                continue
            except OSError as error:  # no file descriptor is left, for example
                logger.warning("Connections cannot be accepted: %s", error.strerror)
                self._make_room()
                await asyncio.sleep(_ACCEPT_RETRY_SECONDS)
            else:
                self._admit(accepted)
                if number % _ACCEPTS_AT_ONCE == 0:
                    await asyncio.sleep(0)

    def _admit(self, accepted: socket.socket) -> None:
        connections, limit = self.server_state.connections, self._max_connections
        protocol = StrictH11Protocol(self.config, self.server_state, self.lifespan.state)
        if len(connections) >= limit and not self._make_room():
            logger.warning("All %d connections are in use", limit)
            if len(connections) >= limit + _EXCESS_CONNECTIONS:
                accepted.close()
                return
            protocol.app = self._refuse
        connections.add(protocol)
        protocol.opening = asyncio.create_task(self._open(accepted, protocol))

    async def _open(self, accepted: socket.socket, protocol: StrictH11Protocol) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self.config.ssl)
        except (OSError, asyncio.CancelledError):  # the client left, or was too slow
            self.server_state.connections.discard(protocol)

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for its client, if there is one."""
        while self._waiting:
            connection = self._waiting.popleft()
            if connection.is_waiting:
                connection.abort()
                self.server_state.connections.discard(connection)
                return True
        return False

    def _watch_connections(self) -> None:
        now = asyncio.get_running_loop().time()
        connections: list[StrictH11Protocol] = [*self.server_state.connections]  # type: ignore[list-item]
        waiting = [one for one in connections if one.watch(now, self._wait_limits)]
        self._waiting = deque(sorted(waiting, key=lambda connection: connection.waiting_since))


def _refusal(limit: int) -> ASGIApp:
    """The application of connections beyond the bound."""
    message = f"This server has all of its {limit} connections in use. Please try again in 1s."
    response = error_response(EmojituneError(message, code="server_busy"))
    response.headers.update({"connection": "close", "retry-after": "1", "x-should-retry": "true"})
    return UnreadBodyMiddleware(response)
