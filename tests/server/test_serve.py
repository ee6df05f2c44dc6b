import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from emojitune.errors import ConfigurationError, StorageError
from emojitune.server import app
from emojitune.server import serve as serve_module
from emojitune.server.batches.runner import BatchRunner
from emojitune.server.edge.listening import open_listener
from emojitune.server.serve import serve
from emojitune.settings import Settings
from emojitune.store.batches import BatchStore
from emojitune.store.database import open_database
from emojitune.store.jobs import JobStore
from emojitune.store.keys import KeyStore
from emojitune.workflow.provider import connect

SERVE = """
import sys, pathlib
from emojitune.server.edge.listening import open_listener
from emojitune.server.serve import serve
from emojitune.settings import Settings
home = pathlib.Path(sys.argv[1])
settings = Settings(home=home, cache=home, port=0, api_key="sk-test")
serve(settings, announce=lambda url: print(url, flush=True))
"""

SERVE_AND_LOG = """
import asyncio, logging, pathlib, sys, threading, warnings
from emojitune.server.serve import serve
from emojitune.settings import Settings

def log(url):
    own = logging.getLogger("library")  # as transformers does it
    own.addHandler(logging.StreamHandler())
    own.propagate = False
    own.warning("library")
    import huggingface_hub
    for name in (None, "asyncio", "httpx", "huggingface_hub.utils", "uvicorn.error"):
        logging.getLogger(name).warning("logged by %s", name)
    warnings.warn("a warning")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    asyncio.get_running_loop().call_soon(lambda: int("secret"))
    print("printed", file=sys.stderr)
    for number in range(10_000):
        logging.getLogger("repeated").error("the same")

home = pathlib.Path(sys.argv[1])
settings = Settings(home=home, cache=home, port=0, api_key="sk-test")
serve(settings, announce=log, idle_timeout=0.2)
"""


class IdleDispatcher:
    """Starts no job."""

    def __init__(self, _settings: Settings) -> None: ...

    def start(self) -> None: ...

    def wake(self) -> None: ...

    def request_stop(self) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(app, "Dispatcher", IdleDispatcher)
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache", port=0, api_key="sk-test")


def test_a_server_announces_its_address_and_stops_when_idle(settings: Settings) -> None:
    seen: list[tuple[str, int, dict[str, object]]] = []

    def look(url: str) -> None:
        note = json.loads((settings.home / "server.json").read_text())
        seen.append((url, os.getpid(), note))

    serve(settings, announce=look, idle_timeout=0.2)
    [(url, pid, note)] = seen
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert note == {"url": url, "pid": pid}
    assert not (settings.home / "server.json").exists()


def test_a_server_does_not_stop_while_a_job_is_unfinished(settings: Settings) -> None:
    database = open_database(settings.home)
    jobs = JobStore(database, "default")
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    thread = threading.Thread(
        target=serve, args=[settings], kwargs={"announce": lambda _url: None, "idle_timeout": 0.2}
    )
    thread.start()
    thread.join(0.8)
    assert thread.is_alive()
    jobs.transition(job.id, "cancelled", sources=["validating_files"])
    thread.join(5)
    assert not thread.is_alive()
    database.close()


def test_a_server_does_not_stop_while_a_batch_is_unfinished(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchRunner, "_unfinished", _nothing)
    database = open_database(settings.home)
    batches = BatchStore(database, "default")
    batch = batches.create(
        endpoint="/v1/chat/completions", input_file_id="file-a", completion_window="24h"
    )
    thread = threading.Thread(
        target=serve, args=[settings], kwargs={"announce": lambda _url: None, "idle_timeout": 0.2}
    )
    thread.start()
    thread.join(0.8)
    assert thread.is_alive()
    batches.transition(batch.id, "failed", sources=["validating"])
    thread.join(5)
    assert not thread.is_alive()
    database.close()


async def _nothing(_runner: BatchRunner) -> tuple[str, ...]:
    return ()


def test_a_busy_port_is_reported(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        taken = settings.model_copy(update={"port": port})
        with pytest.raises(ConfigurationError, match=rf"127\.0\.0\.1:{port} cannot be had"):
            serve(taken, announce=print)


def test_the_host_of_another_machine_is_refused(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"host": "192.0.2.1"})
    with pytest.raises(ConfigurationError, match="needs a free port"):
        serve(elsewhere, announce=print)


@pytest.mark.parametrize("host", ["http://127.0.0.1", "[::1", "a" * 70])
def test_an_invalid_host_is_refused(settings: Settings, host: str) -> None:
    with pytest.raises(ConfigurationError, match="Choose another with --host"):
        serve(settings.model_copy(update={"host": host}), announce=print)


def test_two_servers_cannot_share_a_home_and_a_signal_shuts_one_down(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx2.get(url.removesuffix("/v1") + "/healthz").status_code == 200
        settings = Settings(home=tmp_path, cache=tmp_path, port=0, api_key="sk-test")
        with pytest.raises(ConfigurationError, match="another one is using"):
            serve(settings, announce=print)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
    assert not (tmp_path / "server.json").exists()


def test_importing_the_server_does_not_load_torch() -> None:
    script = "import sys, emojitune.server.serve; print('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_responses_do_not_wait_for_acknowledgements(settings: Settings) -> None:
    with (
        open_listener(settings) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_key_that_was_given(settings: Settings, host: str) -> None:
    alone = settings.model_copy(update={"host": host, "api_key": None})
    with pytest.raises(ConfigurationError, match=f"Others can reach {host}, and no key was made"):
        serve(alone, announce=print)
    empty = alone.model_copy(update={"api_key": SecretStr("")})
    with pytest.raises(ConfigurationError, match="Others can reach"):
        open_listener(empty)
    open_listener(settings.model_copy(update={"host": host})).close()
    database = open_database(settings.home)
    key, _ = KeyStore(database).create("team")
    open_listener(alone).close()
    KeyStore(database).revoke(key.id)
    with pytest.raises(ConfigurationError, match="Others can reach"):
        open_listener(alone)
    database.close()


def test_the_loopback_address_needs_no_configured_key(settings: Settings) -> None:
    for host in ("127.0.0.1", "localhost"):
        open_listener(settings.model_copy(update={"host": host, "api_key": None})).close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for an address of another machine, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=emoji.example"]
    command += ["-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_a_server_speaks_tls_and_its_home_has_the_certificate(
    settings: Settings, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key = certificate
    encrypted = settings.model_copy(update={"tls_cert": cert, "tls_key": key})
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    seen: list[object] = []

    def look(url: str) -> None:
        threading.Thread(target=send_requests, args=[url]).start()

    def send_requests(url: str) -> None:
        with pytest.raises(httpx2.ConnectError):  # a client without the home does not trust it
            httpx2.get(f"{url}/models")
        with connect("local", settings) as connection:
            seen.extend([url.split(":")[0], len(list(connection.client.models.list())) > 5])
        # By its URL it is like any server: the environment has the trusted certificates.
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        with connect(url.replace("127.0.0.1", "localhost")) as connection:
            seen.append(len(list(connection.client.models.list())) > 5)

    serve(encrypted, announce=look, idle_timeout=1.5)
    assert seen == ["https", True, True]


def test_an_unusable_certificate_is_reported(
    settings: Settings, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    for update, words in (
        ({"tls_cert": cert}, "give both"),
        ({"tls_key": key}, "give both"),
        ({"tls_cert": cert, "tls_key": cert}, "cannot be used"),
        ({"tls_cert": tmp_path / "none", "tls_key": key}, "No such file"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            serve(settings.model_copy(update=update), announce=print)


def test_the_log_is_one_json_object_per_line_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        httpx2.get(f"{url}/models", headers={"authorization": "Bearer sk-test"})
        with socket.create_connection(httpx2.URL(url).netloc.decode().split(":")) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            connection.recv(1000)
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in process.stderr]
    records = [(line["logger"], line["level"], line.get("status")) for line in lines]
    assert ("emojitune.server.edge.access_log", "info", 200) in records
    assert ("uvicorn.error", "warning", None) in records


def test_every_line_on_stderr_is_a_json_object_and_none_floods_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SERVE_AND_LOG, str(tmp_path)]
    stderr = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    lines = [json.loads(line) for line in stderr.splitlines()]
    messages = [line["message"] for line in lines]
    assert {"library", "printed", "A thread failed"} < set(messages)
    for name in ("None", "asyncio", "httpx", "huggingface_hub.utils", "uvicorn.error"):
        assert messages.count(f"logged by {name}") == 1
    assert any("UserWarning: a warning" in message for message in messages)
    assert any(line["error"].startswith("ValueError at") for line in lines if "error" in line)
    assert "secret" not in stderr
    assert len([line for line in lines if line["logger"] == "repeated"]) == 10


def test_a_read_only_home_is_reported(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(serve_module, "FileLock", refuse)
    with pytest.raises(StorageError, match="mounted read-only"):
        serve(settings, announce=print)
