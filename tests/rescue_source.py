"""A stand-in for OpenAI's API as `rescue` meets it, on a real port: an account, and its habits.

Objects are JSON texts, so that a test can tell whether they arrive as they were sent. Pages have a
cursor, result files are base64, some purposes are never sent, and requests fail as scripted.
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "sk-proj-never-written-4711"
MODEL = "ft:gpt-3.5-turbo-0125:personal:emoji-v1:CRqb7Ag7"
CSV = (
    b"step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n"
    b"1,4.23,0.5,,\n2,0.0,1,,\n"
)
FREE_ACCOUNT = "downloading of fine-tune training files is disabled for free accounts"
NEVER_SENT = ("assistants", "user_data")


@dataclass
class Trouble:
    """What goes wrong with the next requests whose path ends in `path`.

    Attributes:
        status: The status of the response; 0 cuts the connection after `sent` bytes of the body.
    """

    path: str
    status: int = 0
    times: int = 1
    sent: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "The server had an error."


@dataclass
class RescueSource:
    """An account, its troubles, and the requests that were received."""

    url: str = ""
    jobs: dict[str, str] = field(default_factory=dict)  # newest first, as JSON texts
    events: dict[str, list[str]] = field(default_factory=dict)
    checkpoints: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    chats: dict[str, str] = field(default_factory=dict)
    messages: dict[str, list[str]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)  # bodies of requests for chats
    batch_polls: int = 2  # until a batch that was created is completed
    is_free_account: bool = False
    deleted_after_page: str | None = None  # a job that is gone once a page ended with it
    troubles: list[Trouble] = field(default_factory=list)
    trouble_every: int = 0  # a 429, a 500 or a cut in turn, at every so many requests
    requests: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    lock: Any = field(default_factory=threading.Lock)

    def trouble(self, path: str) -> Trouble | None:
        with self.lock:
            self.requests.append(path)
            number = len(self.requests)
            for one in self.troubles:
                if one.times and path.endswith(one.path):
                    one.times -= 1
                    return one
        if self.trouble_every and number % self.trouble_every == 0:
            kinds = (
                Trouble(path, 429, headers={"Retry-After": "0.01"}),
                Trouble(path, 503, headers={"retry-after-ms": "5"}),
                Trouble(path, 0, sent=10),
            )
            return kinds[number // self.trouble_every % 3]
        return None

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        """The status and body for a GET."""
        match [unquote(one) for one in path.strip("/").split("/")]:
            case ["fine_tuning", "jobs"]:
                return self._page(list(self.jobs.values()), query, "fine_tune")
            case ["fine_tuning", "jobs", job, part]:
                if job not in self.jobs:
                    return _refusal(404, f"Could not find fine tune: {job}", "fine_tune_not_found")
                listed = self.events if part == "events" else self.checkpoints
                return self._page(listed.get(job, []), query, job)
            case ["files"]:
                return self._page(list(self.files.values()), query)
            case ["files", file]:
                return _one(self.files, file, f"No such File object: {file}")
            case ["files", file, "content"]:
                return self._content(file)
            case ["models"]:
                return 200, _list(list(self.models.values()))
            case ["models", *name]:
                model = "/".join(name)
                return _one(self.models, model, f"The model '{model}' does not exist")
            case ["batches"]:
                return self._page(list(self.batches.values()), query)
            case ["batches", batch]:
                self._poll_batch()
                return _one(self.batches, batch, f"No batch {batch}")
            case ["chat", "completions"]:
                return self._page(list(self.chats.values()), query)
            case ["chat", "completions", chat, "messages"]:
                return self._page(self.messages[chat], query)
        return _refusal(404, f"Invalid URL (GET /v1{path})")

    def reply(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """The status and body for a request for a chat completion."""
        self.asked.append(body)
        question = body["messages"][-1]["content"]
        if question == "forbidden":
            return _refusal(400, "The response was filtered.", "content_filter")
        text = f"({len(question)})"
        logprobs = '{"content": [{"token": "(", "logprob": -1E-1, "top_logprobs": []}]}'
        choices = [
            f'{{"index": {number}, "message": {{"role": "assistant", "content": "{text}"}},\n'
            f'"logprobs": {logprobs if body.get("logprobs") else "null"}}}'
            for number in range(body.get("n", 1))
        ]
        return 200, f'{{"id": "chatcmpl", "choices": [{", ".join(choices)}]}}'.encode()

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """The status and body for a POST."""
        if path == "/chat/completions":
            return self.reply(json.loads(body))
        if path == "/files":
            lines = body.split(b"\r\n\r\n")
            [content] = [one for one in lines if one.startswith(b'{"custom_id"')]
            self.add_file("file-asked", "batch.jsonl", content.partition(b"\r\n")[0], "batch")
            return 200, self.files["file-asked"].encode()
        value = {"id": "batch_asked", "status": "in_progress", **json.loads(body)}
        self.batches["batch_asked"] = json.dumps(value)
        return 200, self.batches["batch_asked"].encode()

    def _poll_batch(self) -> None:
        """Complete the batch that was created, after some polls."""
        self.batch_polls -= 1
        value = json.loads(self.batches["batch_asked"])
        if self.batch_polls or value["status"] != "in_progress":
            return
        output: dict[bool, bytes] = {True: b"", False: b""}
        for line in self.contents[value["input_file_id"]].splitlines():
            row = json.loads(line)
            status, body = self.reply(row["body"])
            head = f'{{"custom_id": "{row["custom_id"]}", "response": {{"status_code": {status}'
            text = body.decode().replace("\n", " ")
            output[status == 200] += f'{head}, "body": {text}}}, "error": null}}\n'.encode()
        self.add_file("file-replies", "output.jsonl", output[True], "batch_output")
        self.add_file("file-errors", "errors.jsonl", output[False], "batch_output")
        ended = {"output_file_id": "file-replies", "error_file_id": "file-errors"}
        self.batches["batch_asked"] = json.dumps({**value, "status": "completed", **ended})

    def _page(self, texts: list[str], query: dict[str, str], job: str = "") -> tuple[int, bytes]:
        ids = [json.loads(text).get("id") for text in texts]
        start = 0
        if "after" in query:
            if query["after"] not in ids:
                return _refusal(404, f"Could not find {query['after']}")
            start = ids.index(query["after"]) + 1
        end = start + int(query.get("limit", "20"))
        page = texts[start:end]
        last = ids[min(end, len(ids)) - 1] if page else None
        if self.deleted_after_page is not None and self.deleted_after_page in (last, job):
            del self.jobs[self.deleted_after_page]
            self.deleted_after_page = None
        return 200, _list(page, has_more=end < len(texts))

    def _content(self, file: str) -> tuple[int, bytes]:
        if file not in self.files:
            return _refusal(404, f"No such File object: {file}")
        purpose = json.loads(self.files[file])["purpose"]
        if purpose in NEVER_SENT:
            return _refusal(400, f"Not allowed to download files of purpose: {purpose}")
        if purpose == "fine-tune" and self.is_free_account:
            return _refusal(400, FREE_ACCOUNT)
        return 200, self.contents[file]

    def add_file(self, file_id: str, name: str, content: bytes, purpose: str = "fine-tune") -> None:
        value = {"object": "file", "id": file_id, "purpose": purpose, "filename": name}
        self.files[file_id] = json.dumps(
            {**value, "bytes": len(content), "created_at": 1, "status": "processed", "new": [None]}
        )
        self.contents[file_id] = (
            base64.b64encode(content) if purpose == "fine-tune-results" else content
        )

    def add_job(
        self, job_id: str, status: str = "succeeded", *, steps: int = 3, **more: Any
    ) -> None:
        """A job with numbers and fields that parsing and writing them again would change."""
        value = {"object": "fine_tuning.job", "id": job_id, "status": status, **more}
        text = json.dumps(value)[:-1]
        self.jobs[job_id] = (
            text + ', "hyperparameters": {"learning_rate_multiplier": 1.80, "n_epochs":3}, '
            '"from_next_year":\n  {"tiny": 1E-5, "\\u00fc": "\\ud83c\\udf89"}}'
        )
        self.events[job_id] = [
            event(f"ftevent-{job_id}-{number}", number) for number in range(steps, 0, -1)
        ]
        self.checkpoints[job_id] = [
            f'{{"object": "fine_tuning.job.checkpoint", "id": "ftckpt_{job_id}{number}", '
            f'"step_number": {number}, "metrics": {{"train_loss": 0.50}}}}'
            for number in range(min(steps, 3), 0, -1)
        ]


def event(event_id: str, step: int) -> str:
    """Each third event is one of the kinds that the SDK does not know."""
    data = f'{{"step": {step}, "train_loss": {step}.10, "total_steps": 1707}}'
    if step % 3 == 0:
        return (
            f'{{"object": "fine_tuning.job.event", "id": "{event_id}", "created_at": {step}, '
            f'"level": "info", "message": "Moderation checks passed.", '
            '"type": "moderation_checks", "data": {"blocked":false}}'
        )
    return (
        f'{{"object": "fine_tuning.job.event", "id": "{event_id}", "created_at": {step}, '
        f'"level": "info",\n "message": "Step {step}/1707", "type": "metrics", "data": {data}}}'
    )


def fill(source: RescueSource, *, files: int = 30, steps: int = 250) -> None:
    """An account with jobs of every kind, and names that no file system would take."""
    source.add_file("file-train", "emoji_ft_train.jsonl", b'{"messages": []}\n' * 400)
    source.add_file("file-TRAIN", "../../con", b"same id without regard to case")
    source.add_file("file-result", "step_metrics.csv", CSV, "fine-tune-results")
    source.add_file("file-private", "notes.txt", b"", "user_data")
    source.add_file("file-batch", "file.json", b'{"custom_id": "1"}\n', "batch")
    source.add_file("file-output", "out.jsonl", b'{"id": "batch_req_1"}\n', "batch_output")
    for number in range(files):
        source.add_file(f"file-{number}", f"train {number}.jsonl", b"%d\n" % number * number)
    shared = {"training_file": "file-train", "validation_file": None, "result_files": []}
    source.add_job("ftjob-running", "running", steps=5, **shared)
    source.add_job(
        "ftjob-done",
        steps=steps,
        **{**shared, "result_files": ["file-result"], "fine_tuned_model": MODEL},
    )
    source.add_job("ftjob-failed", "failed", steps=2, training_file="file-deleted", error={})
    source.add_job("ftjob-old", "cancelled", steps=0)
    source.jobs["ftjob-old"] = '{"id":"ftjob-old","status":"cancelled"}'
    source.models[MODEL] = json.dumps(
        {"id": MODEL, "object": "model", "owned_by": "personal", "shutdown_date": "2026-10-23"}
    )
    source.models["gpt-4o"] = '{"id": "gpt-4o", "object": "model", "shutdown_date": null}'
    source.batches["batch_1"] = json.dumps(
        {
            "id": "batch_1",
            "status": "completed",
            "input_file_id": "file-batch",
            "output_file_id": "file-output",
            "error_file_id": None,
        }
    )
    source.chats["chatcmpl-1"] = '{"id": "chatcmpl-1", "object": "chat.completion", "choices": []}'
    source.messages["chatcmpl-1"] = ['{"id": "chatcmpl-1-0", "role": "user", "content": "hi"}']


def _one(texts: dict[str, str], name: str, message: str) -> tuple[int, bytes]:
    return (200, texts[name].encode()) if name in texts else _refusal(404, message)


def _list(texts: list[str], has_more: bool = False) -> bytes:
    more = json.dumps(has_more)
    return f'{{"object": "list", "data": [{", ".join(texts)}], "has_more": {more}}}'.encode()


def _refusal(status: int, message: str, code: str | None = None) -> tuple[int, bytes]:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return status, json.dumps({"error": error}).encode()


def _handler(source: RescueSource) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for head and body: two of them wait for each other

        def handle_any(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urlsplit(self.path)
            path = url.path.removeprefix("/v1")
            if path == "/healthz":  # as of a provider that is not ours
                self.send_error(404)
                return
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            headers: dict[str, str] = {}
            trouble = source.trouble(path)
            key = self.headers.get("Authorization", "").removeprefix("Bearer ")
            source.keys.add(key)
            if trouble is not None and trouble.status:
                status, body = _refusal(trouble.status, trouble.message)
                headers = trouble.headers
            elif self.command == "POST":
                status, body = source.post(path, sent)
            else:
                status, body = source.answer(path, query)
            self.send_response(status)
            kind = "application/octet-stream" if path.endswith("content") else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if trouble is not None and not trouble.status:
                body = body[: trouble.sent]
                self.close_connection = True
            self.wfile.write(body)

        do_GET = do_POST = handle_any

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *arguments: object) -> None:
        """A client that was killed."""


@contextmanager
def running_rescue_source() -> Iterator[RescueSource]:
    """An empty account at a free port."""
    source = RescueSource()
    server = _Server(("127.0.0.1", 0), _handler(source))
    source.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield source
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
