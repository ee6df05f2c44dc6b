"""The application on a real port, with all responses checked against their schemas."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from clocks import OffsetClock
from fakes import FakeChatModel, FakeDispatcher
from fastapi import FastAPI
from schema_middleware import SchemaCheckMiddleware

from emojitune.server.context import RequestContext
from emojitune.server.edge.connections import BoundedServer
from emojitune.store.scope import DEFAULT_PROJECT

KEY = "sk-test-key"


@dataclass(frozen=True)
class RunningServer:
    """A server on a real port, with its fakes."""

    url: str
    app: FastAPI
    dispatcher: FakeDispatcher
    chat_model: FakeChatModel
    clock: OffsetClock = field(default_factory=OffsetClock)

    @property
    def context(self) -> RequestContext:
        """The context of the default project, to which the server's own key belongs."""
        context: RequestContext = self.app.state.context_for(DEFAULT_PROJECT)
        return context


@contextmanager
def serving(app: FastAPI, *, tls: tuple[Path, Path] | None = None, **limits: Any) -> Iterator[str]:
    """Run `app` on a free port in a thread; yields the base URL.

    Args:
        tls: The certificate and its key.
        limits: Of the connections.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as serve.py does
    config = uvicorn.Config(
        SchemaCheckMiddleware(app),
        log_level="warning",
        timeout_graceful_shutdown=1,
        ssl_certfile=tls and tls[0],
        ssl_keyfile=tls and tls[1],
    )
    server = BoundedServer(config, **limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
