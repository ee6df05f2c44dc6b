"""The bound on connections, and the time limits of those that wait for their client."""

import json
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fakes import FakeChatModel, FakeDispatcher, FakeGeneration
from openai import OpenAI
from servers import KEY, RunningServer, serving

from emojitune.inference.types import Delta, InferenceRequest, Listener
from emojitune.server.app import create_app
from emojitune.server.edge import h11_protocol
from emojitune.server.edge.connections import MAX_CONNECTIONS, connection_bound
from emojitune.server.edge.h11_protocol import StrictH11Protocol, WaitLimits
from emojitune.settings import Settings

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-test-key\r\n"
STREAM = {
    "model": "gpt-3.5-turbo",
    "messages": [{"role": "user", "content": "go on for ever"}],
    "stream": True,
}

SERVE = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from emojitune.server.serve import serve
from emojitune.settings import Settings
home = pathlib.Path(sys.argv[1])
settings = Settings(home=home, cache=home, port=0, api_key="sk-test")
serve(settings, announce=lambda url: print(url, flush=True))
"""


class EndlessChatModel(FakeChatModel):
    """Replies until it is cancelled."""

    def start(self, request: InferenceRequest, listener: Listener) -> FakeGeneration:
        generation = FakeGeneration()
        self.generations.append(generation)

        def generate() -> None:
            while not generation.cancelled.wait(0.01):
                listener(Delta(0, "x" * 100_000))

        threading.Thread(target=generate).start()
        return generation


@contextmanager
def server_with(
    folder: Path, chat_model: FakeChatModel | None = None, **options: Any
) -> Iterator[RunningServer]:
    settings = Settings(home=folder / "home", cache=folder / "cache", api_key=KEY)
    dispatcher, chat_model = FakeDispatcher(), chat_model or FakeChatModel()
    app = create_app(settings, dispatcher=dispatcher, load_model=lambda *_: chat_model)
    with serving(app, **options) as url:
        yield RunningServer(url, app, dispatcher, chat_model)


def connect(server: RunningServer, receive_buffer: int | None = None) -> socket.socket:
    address = urlsplit(server.url)
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    connection.connect((address.hostname, address.port))
    return connection


def received(connection: socket.socket) -> bytes:
    """The bytes that arrive until the connection is closed."""
    chunks = []
    with suppress(ConnectionError):
        chunks = list(iter(lambda: connection.recv(65536), b""))
    return b"".join(chunks)


def health(server: RunningServer) -> int:
    return httpx2.get(server.url.removesuffix("/v1") + "/healthz").status_code


def test_idle_connections_make_room_for_new_ones(tmp_path: Path) -> None:
    with server_with(tmp_path, max_connections=8) as server, ExitStack() as opened:
        idle = [opened.enter_context(connect(server)) for _ in range(8)]
        time.sleep(0.5)  # until they have been watched
        assert [health(server) for _ in range(4)] == [200] * 4
        assert received(idle[0]) == b"", "the longest idle is closed"
        idle[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert received(idle[-1]).startswith(b"HTTP/1.1 200"), "and no other"


def test_a_connection_too_many_is_refused_in_words(tmp_path: Path) -> None:
    with (
        server_with(tmp_path, max_connections=2) as server,
        OpenAI(base_url=server.url, api_key=KEY) as client,
        ExitStack() as opened,
    ):
        for _ in range(2):
            stream = opened.enter_context(client.chat.completions.create(**STREAM))
            next(iter(stream))
        response = httpx2.get(server.url + "/models")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        error = response.json()["error"]
        assert error["message"].startswith("This server has all of its 2 connections in use.")
        assert (error["type"], error["code"]) == ("server_error", "server_busy")
        stream.close()
        assert client.with_options(max_retries=9).models.list().data


def test_connections_far_beyond_the_bound_are_closed(tmp_path: Path) -> None:
    with server_with(tmp_path, max_connections=0) as server, ExitStack() as opened:
        for _ in range(16):
            opened.enter_context(connect(server)).sendall(HEAD + b"Content-Length: 1\r\n\r\n")
        with pytest.raises(httpx2.TransportError):
            health(server)


@pytest.mark.parametrize("sent", [b"", b"GET /v1/models HTTP/1.1\r\nX: "])
def test_a_head_must_arrive_in_time(tmp_path: Path, sent: bytes) -> None:
    with server_with(tmp_path, wait_limits=WaitLimits(head=0.3)) as server:
        with connect(server) as connection:
            connection.sendall(sent)
            refused = send_slowly(connection, b"x" if sent else b"")
        assert refused.startswith(b"HTTP/1.1 408 ")
        assert "headers of a request must arrive within 0.3 seconds" in message_of(refused)
        assert health(server) == 200


def test_a_refused_client_that_sends_on_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(h11_protocol, "_LINGER_SECONDS", 0.3)
    with server_with(tmp_path) as server, connect(server) as connection:
        connection.sendall(b"not HTTP at all\r\n\r\n")
        assert received(connection).startswith(b"HTTP/1.1 400 ")
        deadline = time.monotonic() + 10
        with suppress(ConnectionError):
            while time.monotonic() < deadline:
                connection.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() < deadline


def test_a_body_must_arrive_in_time(tmp_path: Path) -> None:
    with (
        server_with(tmp_path, wait_limits=WaitLimits(body=0.3)) as server,
        connect(server) as connection,
    ):
        connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
        refused = send_slowly(connection, b" ")
        assert refused.startswith(b"HTTP/1.1 408 ")
        assert "8192 bytes of a body must arrive in 0.3 seconds" in message_of(refused)
        assert health(server) == 200


def send_slowly(connection: socket.socket, byte: bytes) -> bytes:
    """Send a byte now and then until the response has ended, which is returned."""
    connection.settimeout(0.02)
    deadline = time.monotonic() + 10
    response = b""
    while time.monotonic() < deadline:
        with suppress(TimeoutError):
            if not (chunk := connection.recv(65536)):
                return response
            response += chunk
        connection.sendall(byte)
    raise AssertionError("no time limit ends it")


def message_of(response: bytes) -> str:
    message: str = json.loads(response.partition(b"\r\n\r\n")[2])["error"]["message"]
    return message


def test_a_client_that_reads_nothing_ends_its_generation(tmp_path: Path) -> None:
    model = EndlessChatModel()
    with (
        server_with(tmp_path, model, wait_limits=WaitLimits(reading=0.3)) as server,
        connect(server, receive_buffer=4096) as connection,
    ):
        body = json.dumps(STREAM).encode()
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        deadline = time.monotonic() + 30
        while not model.generations and time.monotonic() < deadline:
            time.sleep(0.01)
        assert model.generations[0].cancelled.wait(30)
        assert health(server) == 200


def test_a_tls_handshake_must_end_in_time(tmp_path: Path) -> None:
    limits = {"max_connections": 4, "wait_limits": WaitLimits(handshake=1)}
    with server_with(tmp_path, tls=certificate(tmp_path), **limits) as server:
        with connect(server) as connection:
            assert received(connection) == b""
        with ExitStack() as opened:
            for _ in range(20):
                opened.enter_context(connect(server))
            time.sleep(0.3)  # until they have been watched
            url = server.url.replace("http://", "https://").removesuffix("/v1") + "/healthz"
            assert httpx2.get(url, verify=trusting()).status_code == 200


def test_a_tls_connection_is_read_little_by_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    receive = StrictH11Protocol.data_received

    def record(self: StrictH11Protocol, data: bytes) -> None:
        sizes.append(len(data))
        receive(self, data)

    monkeypatch.setattr(StrictH11Protocol, "data_received", record)
    with (
        server_with(tmp_path, tls=certificate(tmp_path)) as server,
        connect(server) as plain,
        trusting().wrap_socket(plain) as connection,
    ):
        body = b" " * 2**20
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert sum(sizes) > len(body)
    assert max(sizes) <= 32 * 1024


def certificate(folder: Path) -> tuple[Path, Path]:
    """A new certificate of localhost, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    subprocess.run([*command, "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def trusting() -> ssl.SSLContext:
    """A client that trusts every certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_client_that_left_before_it_was_accepted_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, aborted = BaseSelectorEventLoop.sock_accept, iter(range(20))

    async def sock_accept(loop: BaseSelectorEventLoop, listener: socket.socket) -> Any:
        if next(aborted, None) is not None:
            raise ConnectionAbortedError
        return await accept(loop, listener)

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_accept", sock_accept)
    with server_with(tmp_path) as server:
        began = time.monotonic()
        assert health(server) == 200
    assert time.monotonic() - began < 5


def test_a_server_short_of_file_descriptors_serves_and_stays_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with (
        (tmp_path / "stderr").open("wb") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ExitStack() as opened,
    ):
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        for _ in range(300):
            connection = opened.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex((address.hostname, address.port))
        time.sleep(0.5)
        url = f"http://{address.netloc}/healthz"
        assert [httpx2.get(url).status_code for _ in range(5)] == [200] * 5
        descriptors = len(os.listdir(f"/proc/{process.pid}/fd")) if sys.platform == "linux" else 0
        process.kill()
    assert descriptors < 200
    assert (tmp_path / "stderr").stat().st_size < 10_000


def test_connections_may_have_half_of_the_file_descriptors() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
        bound = connection_bound()
        raised, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert bound == min(MAX_CONNECTIONS, raised // 2)
    assert raised == (2 * MAX_CONNECTIONS if limits[1] < 0 else min(2 * MAX_CONNECTIONS, limits[1]))
