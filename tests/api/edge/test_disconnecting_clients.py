"""Clients that disconnect, on a real port with the real engine: nothing of theirs remains."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes import FakeDispatcher
from openai import OpenAI
from servers import KEY, serving
from tiny_model import make_tiny_base

from emojitune.inference.chat_model import ChatModel
from emojitune.server.app import create_app
from emojitune.server.context import RequestContext
from emojitune.settings import Settings
from emojitune.store.scope import DEFAULT_PROJECT

AT_ONCE = 8
ENDLESS = {"logit_bias": {"2": -100}}  # the tiny model's stop token
CHAT = {"messages": [{"role": "user", "content": "What a day"}], "max_tokens": 3000, **ENDLESS}
STREAMS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("chat/completions", {**CHAT, "stream": True}),
    ("chat/completions", {**CHAT, "stream": True, "n": 4, "max_tokens": 1000}),
    ("chat/completions", CHAT),
    ("responses", {"input": "What a day", "stream": True, "max_output_tokens": 3000}),
)


class DisconnectingClients:
    """A server, and clients that open connections to it and drop them."""

    def __init__(self, url: str, context: RequestContext, base: Path) -> None:
        self.url = url
        model = context.pool.get(str(base.resolve()))
        assert isinstance(model, ChatModel)
        self.scheduler = model.runtime.scheduler

    def open_request(self, path: str, body: dict[str, Any]) -> socket.socket:
        """A connection on which a complete request was sent."""
        address, content = urlsplit(self.url), json.dumps({"model": "gpt-3.5-turbo", **body})
        connection = socket.create_connection((address.hostname, address.port), timeout=60)
        head = (
            f"POST /v1/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        connection.sendall((head + content).encode())
        return connection

    def tokens_held(self) -> int:
        """The number of cached tokens that are in use beyond cached prompts."""
        cache = self.scheduler._cache
        remembered = [cached.path.slots for cached in cache._prefixes.values()]
        return int(cache._ref_counts.sum()) - sum(len(slots) for slots in remembered)

    def wait(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, "requests of disconnected clients are still running"
            time.sleep(0.02)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DisconnectingClients]:
    folder = tmp_path_factory.mktemp("vanishing")
    base = make_tiny_base(folder / "base", context_length=4096)
    settings = Settings(
        home=folder / "home",
        cache=folder / "cache",
        api_key=KEY,
        base_model=str(base),
        device="cpu",
        dtype="float32",
        concurrent_requests=AT_ONCE,
    )
    app = create_app(settings, dispatcher=FakeDispatcher())
    with serving(app) as url:
        yield DisconnectingClients(url, app.state.context_for(DEFAULT_PROJECT), base)


def reset(connection: socket.socket) -> None:
    """Reset a connection without closing it, as when a machine is switched off."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize(("path", "body"), STREAMS, ids=["chat", "several", "whole", "response"])
@pytest.mark.parametrize("midway", [False, True], ids=["at once", "midway"])
@pytest.mark.parametrize("disconnect", [socket.socket.close, reset], ids=["closed", "reset"])
def test_a_disconnected_client_leaves_nothing_in_the_engine(
    clients: DisconnectingClients,
    path: str,
    body: dict[str, Any],
    midway: bool,
    disconnect: Callable[[socket.socket], None],
) -> None:
    streamed = bool(body.get("stream"))
    for _ in range(2):
        connections = [clients.open_request(path, body) for _ in range(AT_ONCE)]
        clients.wait(lambda: clients.scheduler.busy)
        for connection in connections:
            if midway and streamed:
                assert connection.recv(12) == b"HTTP/1.1 200"
            disconnect(connection)
        clients.wait(lambda: not clients.scheduler.busy)
    clients.wait(lambda: clients.tokens_held() == 0)


def test_the_slots_of_disconnected_clients_are_free(clients: DisconnectingClients) -> None:
    path, body = STREAMS[0]
    for _ in range(3):
        connections = [clients.open_request(path, body) for _ in range(AT_ONCE)]
        assert {connection.recv(12) for connection in connections} == {b"HTTP/1.1 200"}
        refused = clients.open_request(path, body)
        assert refused.recv(12) == b"HTTP/1.1 429", "the limit can be reached"
        for connection in (*connections, refused):
            connection.close()
        clients.wait(lambda: not clients.scheduler.busy)
    with OpenAI(base_url=clients.url, api_key=KEY, max_retries=0) as client:
        assert client.models.list().data
