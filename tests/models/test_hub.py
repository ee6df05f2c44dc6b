"""Base models from the hub, by its own library, from a small server in its place."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest

from emojitune.errors import ModelError
from emojitune.models import download, hub
from emojitune.models.catalog import HubSource, resolve_base
from emojitune.models.download import exists, fetch
from emojitune.settings import Settings

REVISION = "a" * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": os.urandom(5_000_000),
    "pytorch_model.bin": b"pickled",
}


class _Hub(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/name/revision/"):
            siblings = [{"rfilename": name, "size": len(body)} for name, body in FILES.items()]
            self._send(json.dumps({"id": "org/name", "sha": REVISION, "siblings": siblings}), True)
        elif path.startswith("/api/models/org/name/tree/"):
            tree = [
                {"type": "file", "path": name, "size": len(body), "oid": "0"}
                for name, body in FILES.items()
            ]
            self._send(json.dumps(tree), True)
        elif (name := path.rpartition("/")[2]) in FILES:
            self._send(FILES[name], with_body)
        else:
            self.send_error(404)

    def _send(self, body: str | bytes, with_body: bool) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.send_header("etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("x-repo-commit", REVISION)
        self.end_headers()
        if with_body:
            for start in range(0, len(content), 1_000_000):
                self.wfile.write(content[start : start + 1_000_000])
                time.sleep(0.02)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings of a machine whose hub is this server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield Settings(cache=tmp_path / "cache")
        server.shutdown()


def test_a_model_is_fetched_and_its_bytes_are_reported(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    reported: list[tuple[str, int, int | None]] = []
    folder = fetch(
        resolve_base("org/name@main", settings), settings, lambda *one: reported.append(one)
    )
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert {what for what, _, _ in reported} == {"Downloading org/name"}
    assert max(done for _, done, _ in reported) == 5_000_002
    assert reported[-1][2] == 5_000_002
    assert "%" not in capfd.readouterr().err, "no bar of the library's own"


def test_a_cancellation_is_not_a_failure_of_the_hub(settings: Settings) -> None:
    class CancelledError(Exception): ...

    def cancel(*_: object) -> None:
        raise CancelledError

    with pytest.raises(CancelledError):
        fetch(resolve_base("org/name@main", settings), settings, cancel)


def test_models_on_the_hub_and_in_the_cache_exist(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, absent = (resolve_base(name, settings) for name in ("org/name@main", "org/nothing"))
    assert exists(there, settings)
    assert not exists(absent, settings)
    fetch(there, settings)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert exists(there, settings)
    assert not exists(absent, settings)


def test_a_hub_that_never_answers_is_asked_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked, end = [0.0], [], threading.Event()

    def never(source: HubSource) -> None:
        asked.append(source.repository)
        end.wait(60)

    monkeypatch.setattr(hub, "HUB_SECONDS", 0.01)
    monkeypatch.setattr(download, "HUB", hub.Hub(never, lambda: now[0]))
    names = [f"org/name-{number}" for number in range(8)]
    for name in names:
        assert not exists(resolve_base(name, settings), settings)
        with pytest.raises(ModelError, match="did not answer within"):
            fetch(resolve_base(name, settings), settings)
    assert asked == names[:1]
    now[0] += hub.SILENT_SECONDS
    assert not exists(resolve_base("org/later", settings), settings)
    assert asked == [names[0], "org/later"]
    end.set()


def test_a_cached_model_needs_no_hub_that_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, end = resolve_base("org/name@main", settings), threading.Event()
    folder = fetch(there, settings)
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.01)
    monkeypatch.setattr(download, "HUB", hub.Hub(lambda _: end.wait(60)))
    assert fetch(there, settings) == folder
    end.set()
