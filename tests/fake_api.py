"""A small stand-in for OpenAI's API on a real port: one scripted job, canned replies.

It lets the workflow and the command line be tested through the official SDK without any model.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

MODEL = "ft:gpt-3.5-turbo-0125:local:emoji-v1:abcd1234"
_MODEL = {"id": MODEL, "object": "model", "created": 1, "owned_by": "local"}
JOB = "ftjob-1"
STEPS = 4


def metrics(step: int) -> dict[str, Any]:
    return {"step": step, "total_steps": STEPS, "train_loss": 4.0 / step}


@dataclass
class FakeApi:
    """Scripted responses, and the requests that were received."""

    url: str = ""
    healthy: bool = True
    closed: bool = True  # whether the tuned model has a vocabulary of its own
    final_status: str = "succeeded"
    error: dict[str, Any] | None = None
    polls: int = 0
    polls_to_finish: int = 3
    drop: int = 0  # number of next requests whose connection is closed without a response
    refuse: int | None = None  # respond to everything with this status
    other: tuple[str, bytes] | None = (
        None  # a response that is not of an API: its content type and body
    )
    reply: Callable[[dict[str, Any]], str] = lambda request: "(party)"
    chats: list[dict[str, Any]] = field(default_factory=list)
    created: dict[str, Any] = field(default_factory=dict)
    embedded: list[list[str]] = field(default_factory=list)
    uploaded: bytes = b""
    cancelled: bool = False
    estimated_finish: int | None = None  # while the job runs
    more_of_model: dict[str, Any] = field(default_factory=dict)  # next to OpenAI's own keys
    held: str | None = None  # the status after pausing or resuming the job

    def job(self) -> dict[str, Any]:
        running = ["validating_files", "running", "running"]
        done = self.polls >= self.polls_to_finish or self.cancelled
        status = self.final_status if done else running[min(self.polls, 2)]
        status = "cancelled" if self.cancelled else self.held or status
        return {
            "id": JOB,
            "object": "fine_tuning.job",
            "created_at": 1000,
            "error": self.error if done else None,
            "estimated_finish": None if done else self.estimated_finish,
            "fine_tuned_model": MODEL if status == "succeeded" else None,
            "finished_at": None,
            "hyperparameters": {"n_epochs": 2 if self.polls else "auto"},
            "model": "gpt-3.5-turbo-0125",
            "organization_id": "local",
            "result_files": [],
            "seed": 7,
            "status": status,
            "trained_tokens": None,
            "training_file": "file-1",
            "validation_file": None,
        }

    def events(self) -> list[dict[str, Any]]:
        """Newest first; each poll of the job brings more."""
        said: list[tuple[str, dict[str, Any] | None]] = [(f"Created fine-tuning job: {JOB}", None)]
        if self.polls > 1:
            said += [(f"Step {n}/{STEPS}", metrics(n)) for n in (1, 2)]
        if self.polls >= self.polls_to_finish:
            said += [(f"Step {n}/{STEPS}", metrics(n)) for n in (3, 4)]
            said += [("The job is over", None)]
        return [
            {
                "id": f"ftevent-{place}",
                "object": "fine_tuning.job.event",
                "created_at": 1000 + 10 * place,
                "level": "info",
                "message": message,
                "type": "metrics" if data else "message",
                "data": data or {},
            }
            for place, (message, data) in enumerate(said)
        ][::-1]

    def chat(self, request: dict[str, Any]) -> dict[str, Any]:
        self.chats.append(request)
        text = self.reply(request)
        choice: dict[str, Any] = {
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": text},
        }
        if "alternatives" in request:
            best = [text, "(wave)"][: request["alternatives"]]
            choice["alternatives"] = [
                {"content": one, "logprob": -1.0, "probability": 0.5} for one in best
            ]
        if request.get("logprobs"):
            token = {"token": text, "bytes": None, "top_logprobs": []}
            choice["logprobs"] = {"content": [{**token, "logprob": -0.5}] * 2, "refusal": None}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1000,
            "model": request["model"],
            "choices": [{**choice, "index": i} for i in range(request.get("n", 1))],
        }

    def embeddings(self, request: dict[str, Any]) -> dict[str, Any]:
        """Two numbers for each text: its length and its number of spaces."""
        self.embedded.append(request["input"])
        vectors = [[float(len(text)), float(text.count(" "))] for text in request["input"]]
        data = [
            {"object": "embedding", "index": place, "embedding": vector}
            for place, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "model": request["model"], "data": data, "usage": usage}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        path, _, _ = path.partition("?")
        if path == "/healthz":
            return (200, {"status": "ok"}) if self.healthy else (404, {})
        if self.refuse:
            return self.refuse, {"error": {"message": "No, not you.", "code": "nope"}}
        return self.route(method, path.removeprefix("/v1"), body)

    def route(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        match method, path:
            case "POST", "/files":
                self.uploaded = body
                return 200, {
                    "id": "file-1",
                    "object": "file",
                    "bytes": len(body),
                    "created_at": 1000,
                    "filename": "train.jsonl",
                    "purpose": "fine-tune",
                    "status": "processed",
                }
            case "POST", "/fine_tuning/jobs":
                self.created = json.loads(body)
                if self.created["model"] == "nonsense":
                    said = {"message": "The model 'nonsense' does not exist.", "code": "no_model"}
                    return 404, {"error": said}
                return 200, self.job()
            case "GET", "/fine_tuning/jobs":
                return 200, {"object": "list", "data": [self.job()], "has_more": False}
            case "GET", "/fine_tuning/jobs/ftjob-1":
                self.polls += 1
                return 200, self.job()
            case "POST", "/fine_tuning/jobs/ftjob-1/cancel":
                self.cancelled = True
                return 200, self.job()
            case "POST", "/fine_tuning/jobs/ftjob-1/pause":
                self.held = "paused"
                return 200, self.job()
            case "POST", "/fine_tuning/jobs/ftjob-1/resume":
                self.held = "queued"
                return 200, self.job()
            case "GET", "/fine_tuning/jobs/ftjob-1/events":
                return 200, {"object": "list", "data": self.events(), "has_more": False}
            case "GET", "/models":
                return 200, {"object": "list", "data": [_MODEL]}
            case "GET", name if name in (f"/models/{MODEL}", f"/models/{quote(MODEL)}"):
                return 200, _MODEL | self.more_of_model
            case "POST", "/embeddings":
                return 200, self.embeddings(json.loads(body))
            case "POST", "/chat/completions":
                request = json.loads(body)
                if request.get("decoding") == "labels" and not self.closed:
                    return 400, {"error": {"message": "No vocabulary.", "param": "decoding"}}
                return 200, self.chat(request)
        return 404, {"error": {"message": f"Invalid URL ({method} {path})", "code": None}}


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if api.drop and self.path != "/healthz":
                api.drop -= 1
                self.close_connection = True
                return
            status, value = api.answer(self.command, self.path, body)
            kind, raw = api.other or ("application/json", json.dumps(value).encode())
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextmanager
def running_fake_api() -> Iterator[FakeApi]:
    """A FakeApi that listens on a free port."""
    api = FakeApi()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    api.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
