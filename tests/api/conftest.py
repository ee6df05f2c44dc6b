import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fakes import FakeChatModel, FakeDispatcher
from fastapi import FastAPI
from openai import OpenAI
from watching import Watched

from emojitune.server.app import create_app
from emojitune.server.services import Services
from emojitune.settings import Settings

KEY = "sk-test-key"


@dataclass(frozen=True)
class RunningServer:
    """A server on a real port, and what stands behind it."""

    url: str
    app: FastAPI
    dispatcher: FakeDispatcher
    chat_model: FakeChatModel

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services


@pytest.fixture(autouse=True)
def _replies_have_their_schema() -> Iterator[None]:
    """Whatever a test is about: no reply that it got may differ from schemas.py."""
    yield
    found, Watched.found[:] = list(Watched.found), []
    assert found == []


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Run `app` on a free port in a thread; yields the base URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as serve.py does
    config = uvicorn.Config(Watched(app), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server a module, with an empty home at its start."""
    folder: Path = tmp_path_factory.mktemp("server")
    settings = Settings(
        home=folder / "home", cache=folder / "cache", api_key=KEY, max_file_bytes=1_000_000
    )
    dispatcher, chat_model = FakeDispatcher(), FakeChatModel()
    app = create_app(settings, dispatcher=dispatcher, load_model=lambda _name: chat_model)
    with serving(app) as url:
        yield RunningServer(url, app, dispatcher, chat_model)


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[OpenAI]:
    """The official client at its strictest."""
    with OpenAI(
        base_url=server.url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    """A plain client, for what the official one would not send."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=server.url, headers=headers) as opened:
        yield opened
