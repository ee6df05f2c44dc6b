"""One server process: its home locked, its socket bound, its address told, its end tidy."""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from filelock import FileLock, Timeout

from emojitune.disk import disk_errors
from emojitune.errors import ConfigurationError
from emojitune.server.app import create_app
from emojitune.server.services import Services
from emojitune.settings import Settings

_PATIENCE_SECONDS = 5  # for requests that are still running at the end


def serve(
    settings: Settings, *, announce: Callable[[str], None], idle_timeout: float | None = None
) -> None:
    """Serve until a signal, or until nobody needed it for `idle_timeout` seconds.

    Args:
        announce: Called with the base URL once requests are answered.

    Raises:
        ConfigurationError: The port is busy, or another server has this home folder.
        StorageError: The home folder cannot be written.
    """
    with _locked(settings.home), _bound(settings) as listener:
        with disk_errors(settings.home):
            app = create_app(settings)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_PATIENCE_SECONDS,
        )
        url = _base_url(listener)
        server = _Server(config, app, settings.home / "server.json", url, announce, idle_timeout)
        # uvicorn raises it anew after it has shut down well.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which also tells where it is and notices when it is no longer needed."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        note: Path,
        url: str,
        announce: Callable[[str], None],
        idle_timeout: float | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._note = note
        self._url = url
        self._announce = announce
        self._idle_timeout = idle_timeout
        self._requests = 0
        self._needed_at = time.monotonic()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        content = json.dumps({"url": self._url, "pid": os.getpid()})
        temporary = self._note.with_suffix(".new")
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, self._note)
        self._announce(self._url)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._no_longer_needed()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Before requests are waited for: jobs take as long to save as these to end.
        if self.started:
            self._app.state.services.dispatcher.ask_to_stop()
        # Here, and not after `run`: at its end uvicorn raises the signal that stopped it anew,
        # and SIGTERM then ends the process on the spot.
        await super().shutdown(sockets)
        self._note.unlink(missing_ok=True)

    def _no_longer_needed(self) -> bool:
        if self._idle_timeout is None:
            return False
        state, clock = self.server_state, time.monotonic()
        if state.tasks or state.total_requests != self._requests:
            self._requests, self._needed_at = state.total_requests, clock
        if clock - self._needed_at < self._idle_timeout:
            return False
        services: Services = self._app.state.services
        # A paused job needs nobody: the next server can resume it too.
        jobs = (job for job in services.jobs.unfinished() if job.status != "paused")
        if any(jobs) or services.batches.unfinished():
            self._needed_at = clock
            return False
        return True


def _locked(home: Path) -> AbstractContextManager[Any]:
    try:
        with disk_errors(home):
            home.mkdir(parents=True, exist_ok=True)
            return FileLock(home / "server.lock").acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(
            f"One server has a home folder to itself, and another one is using {home}. Use that "
            "one (its address is in server.json there), stop it, or choose another --home.",
            param="home",
        ) from None


def _bound(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
        # Inherited by every connection. asyncio sees to it only for sockets that it made itself,
        # and without it each answer after the first of a connection waits 40 ms for the client.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigurationError(
            f"The server needs a free port, and {settings.host}:{settings.port} cannot be had: "
            f"{error.strerror}. Choose another with --port (0 takes a free one).",
            param="port",
        ) from error


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
