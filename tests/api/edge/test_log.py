"""The log has the caller and path of each request, and neither its content nor its key."""

import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fakes import FakeChatModel, FakeDispatcher
from openai import OpenAI
from servers import KEY, serving

from emojitune.server.app import create_app
from emojitune.server.edge.logs import JsonFormatter
from emojitune.settings import Settings

SECRET = "Ich-sage-dir-etwas-im-Vertrauen"
MODEL = "gpt-3.5-turbo"


class CapturedLog:
    """Captures the output of the server's loggers."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self._handler = logging.StreamHandler(self._stream)

    def __enter__(self) -> "CapturedLog":
        for name in ("emojitune", "uvicorn"):
            logging.getLogger(name).addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("emojitune", "uvicorn"):
            logging.getLogger(name).removeHandler(self._handler)

    def format(self, *, content: bool) -> None:
        self._handler.setFormatter(JsonFormatter(content=content))

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def requests(self, count: int) -> list[dict[str, Any]]:
        """The lines of `count` requests; each is written once its response has been sent."""
        deadline = time.monotonic() + 10
        while len(found := [line for line in self.lines if line["message"] == "request"]) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    previous = logging.getLogger("emojitune").level
    logging.getLogger("emojitune").setLevel(logging.INFO)
    with CapturedLog() as listening:
        listening.format(content=False)
        yield listening
    logging.getLogger("emojitune").setLevel(previous)


def send_all_kinds_of_requests(http: httpx2.Client, client: OpenAI) -> None:
    """Send requests that succeed, fail, are refused and break, each with the secret in it."""
    messages = [{"role": "user", "content": SECRET}]
    chat = {"model": MODEL, "messages": messages, "metadata": {"a": SECRET}, "store": True}
    for body in (chat, {**chat, "stream": True}, {**chat, SECRET: 1}, {**chat, "n": SECRET}):
        http.post("/chat/completions", json=body)
    for prompt in ("break at once", "fail midway", "fail before the first word", f"say: {SECRET}"):
        for stream in (False, True):
            conversation = [*messages, {"role": "user", "content": prompt}]
            body = {"model": MODEL, "messages": conversation, "stream": stream}
            http.post("/chat/completions", json=body)
    http.get("/chat/completions", params={"metadata[a]": SECRET, SECRET: SECRET})
    http.post("/chat/completions", content=f'{{"{SECRET}'.encode())
    http.post("/responses", json={"model": MODEL, "input": SECRET, "instructions": SECRET})
    http.post("/embeddings", json={"model": MODEL, "input": [SECRET, SECRET]})
    grader = {"type": "string_check", "name": SECRET, "input": SECRET, "reference": SECRET,
              "operation": "eq"}  # fmt: skip
    body = {"grader": grader, "model_sample": SECRET, "item": {"a": SECRET}}
    http.post("/fine_tuning/alpha/graders/run", json=body)
    row = {"custom_id": SECRET, "method": "POST", "url": "/v1/chat/completions", "body": chat}
    content = json.dumps(row).encode()
    file = client.files.create(file=(f"{SECRET}.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    deadline = time.monotonic() + 10
    while client.batches.retrieve(batch.id).status != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.files.content(file.id).read()
    for authorization in (f"Bearer {KEY}x", f"Basic {KEY}", KEY):
        http.get("/models", headers={"authorization": authorization})


def test_neither_keys_nor_content_are_in_the_log(
    server, http: httpx2.Client, client: OpenAI, log: CapturedLog
) -> None:
    _, secret = server.app.state.keys.create("team", "of the test")
    send_all_kinds_of_requests(http, client)
    httpx2.get(f"{server.url}/models", headers={"authorization": f"Bearer {secret}"})
    with httpx2.Client(base_url=server.url, headers={"authorization": f"Bearer {secret}"}) as team:
        send_all_kinds_of_requests(team, client)
    assert len(log.requests(50)) < len(log.lines), "and the accidents"
    statuses = {line.get("status") for line in log.lines}
    assert {200, 400, 401, 500} <= statuses
    for hidden in (SECRET, KEY, secret, secret[12:30], "a secret detail"):
        assert hidden not in log.text
    errors = [line["error"] for line in log.lines if "error" in line]
    assert errors
    assert all(error.startswith("RuntimeError at ") for error in errors)
    assert "fakes.py" in errors[0]


def test_each_request_is_one_line(server, http: httpx2.Client, log: CapturedLog) -> None:
    key, secret = server.app.state.keys.create("team")
    first = http.get("/files/file-x?a=b")
    second = httpx2.get(f"{server.url}/models", headers={"authorization": f"Bearer {secret}"})
    third = httpx2.get(f"{server.url}/models")
    lines = log.requests(3)
    assert [list(line) for line in lines] == [
        ["time", "level", "logger", "message", "request_id", "status", "ms", "method", "path",
         "project", "key"]
    ] * 3  # fmt: skip
    kept = ("request_id", "status", "method", "path", "project", "key")
    assert [tuple(line[name] for name in kept) for line in lines] == [
        (first.headers["x-request-id"], 404, "GET", "/v1/files/file-x", "default", "server"),
        (second.headers["x-request-id"], 200, "GET", "/v1/models", "team", key.id),
        (third.headers["x-request-id"], 401, "GET", "/v1/models", None, None),
    ]
    assert all(isinstance(line["ms"], int) for line in lines)


def test_a_path_cannot_forge_a_line(http: httpx2.Client, log: CapturedLog) -> None:
    http.get('/x%0a{"level": "info"}')
    [line] = log.requests(1)
    assert line["path"] == '/v1/x\n{"level": "info"}'


def test_a_path_cannot_control_a_terminal(http: httpx2.Client, log: CapturedLog) -> None:
    http.get("/x%1b[31m%c2%9b2J%e2%80%aeback")
    [line] = log.requests(1)
    assert line["path"] == "/v1/x\x1b[31m\x9b2J\u202eback"
    assert log.text.strip().isprintable()


def test_content_is_logged_on_request(tmp_path: Path, log: CapturedLog) -> None:
    settings = Settings(home=tmp_path, cache=tmp_path, api_key=KEY, log_content=True)
    log.format(content=True)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=lambda *_: FakeChatModel())
    headers = {"authorization": f"Bearer {KEY}"}
    with serving(app) as url, httpx2.Client(base_url=url, headers=headers) as http:
        for prompt in (SECRET, "break at once"):
            body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]}
            http.post("/chat/completions", json=body)
    requests = log.requests(2)
    assert SECRET in requests[0]["request"]
    assert "(party)" in requests[0]["reply"]
    assert "RuntimeError: a secret detail" in log.text
    assert KEY not in log.text
