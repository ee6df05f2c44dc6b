"""One server process: locks its home, binds its socket, announces its address, shuts down."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from filelock import FileLock, Timeout

from emojitune.disk import disk_errors, open_private
from emojitune.errors import ConfigurationError
from emojitune.server.app import create_app
from emojitune.server.context import RequestContext
from emojitune.server.edge.connections import BoundedServer, connection_bound
from emojitune.server.edge.listening import base_url, check_certificate, open_listener
from emojitune.server.edge.logs import log_config, stderr_logged
from emojitune.settings import Settings
from emojitune.store.database import make_home
from emojitune.store.scope import EVERY_PROJECT

# How long the event loop waits at most for Python's lock while a thread parses or tokenizes; by
# default it is five times as long, and one request takes the lock a dozen times.
_SWITCH_SECONDS = 0.001
_SHUTDOWN_GRACE_SECONDS = 5  # for requests that are still running at shutdown


def serve(
    settings: Settings, *, announce: Callable[[str], None], idle_timeout: float | None = None
) -> None:
    """Serve until a signal, or until the server has been idle for `idle_timeout` seconds.

    Args:
        announce: Called with the base URL once the server accepts requests.

    Raises:
        ConfigurationError: The port is busy, or reachable by others without a key; the
            certificate cannot be used; another server has this home folder.
        StorageError: The home folder cannot be written.
    """
    check_certificate(settings)
    sys.setswitchinterval(_SWITCH_SECONDS)
    with _home_lock(settings.home), open_listener(settings) as listener:
        with disk_errors(settings.home):
            app = create_app(settings)
        config = uvicorn.Config(
            app,
            log_config=log_config(content=settings.log_content),
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_GRACE_SECONDS,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        server_info: dict[str, Any] = {"url": base_url(listener, settings), "pid": os.getpid()}
        if settings.tls_cert:  # clients that share this home trust it, whatever host it names
            server_info["certificate"] = str(settings.tls_cert.resolve())
        server = _Server(
            config, app, settings.home / "server.json", server_info, announce, idle_timeout
        )
        # uvicorn raises KeyboardInterrupt again after a clean shutdown.
        with suppress(KeyboardInterrupt), stderr_logged():
            server.run(sockets=[listener])
        if server.announce_error is not None:
            raise server.announce_error


class _Server(BoundedServer):
    """A server that also announces its address, and stops when it is idle too long."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        path: Path,
        server_info: Mapping[str, Any],
        announce: Callable[[str], None],
        idle_timeout: float | None,
    ) -> None:
        super().__init__(config, max_connections=connection_bound())
        self._app = app
        self._path = path
        self._server_info = server_info
        self._announce = announce
        self._idle_timeout = idle_timeout
        self._total_requests = 0
        self._last_active = time.monotonic()
        self.announce_error: Exception | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        temporary = self._path.with_suffix(".new")
        with open_private(temporary, "w") as file:
            json.dump(self._server_info, file)
        os.replace(temporary, self._path)
        try:
            self._announce(self._server_info["url"])
        except Exception as error:  # raised here, uvicorn would report it with a traceback
            self.announce_error = error
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._idle_timeout_expired()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Before waiting for requests: jobs save their checkpoints in the meantime.
        if self.started:
            self._app.state.context_for(EVERY_PROJECT).dispatcher.request_stop()
        # Here, and not after `run`: uvicorn ends by raising the signal that stopped it again, and
        # SIGTERM then ends the process immediately.
        await super().shutdown(sockets)
        self._path.unlink(missing_ok=True)

    def _idle_timeout_expired(self) -> bool:
        if self._idle_timeout is None:
            return False
        state, clock = self.server_state, time.monotonic()
        if state.tasks or state.total_requests != self._total_requests:
            self._total_requests, self._last_active = state.total_requests, clock
        if clock - self._last_active < self._idle_timeout:
            return False
        context: RequestContext = self._app.state.context_for(EVERY_PROJECT)
        # A paused job needs no server: the next one can resume it.
        jobs = (job for job in context.stores.jobs.unfinished() if job.status != "paused")
        if any(jobs) or context.stores.batches.unfinished():
            self._last_active = clock
            return False
        return True


def _home_lock(home: Path) -> AbstractContextManager[Any]:
    try:
        with disk_errors(home):
            make_home(home)
            return FileLock(home / "server.lock").acquire(timeout=0)
    except Timeout:
        raise ConfigurationError(
            f"One server has a home folder to itself, and another one is using {home}. Use that "
            "one (its address is in server.json there), stop it, or choose another --home.",
            param="home",
        ) from None
