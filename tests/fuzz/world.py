"""The whole application in this process, over the tiny model, with one of everything in it."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import jsonschema
import schemas
from asking import Asked, operations
from fakes import FakeDispatcher
from fastapi import FastAPI
from starlette.types import Message
from tiny_model import make_adapter, make_tiny_base
from watching import replies_of

from emojitune.errors import ModelError
from emojitune.inference.model_pool import GetModel
from emojitune.inference.types import InferenceModel
from emojitune.models.catalog import is_fine_tuned
from emojitune.server.app import create_app
from emojitune.server.context import RequestContext
from emojitune.server.docs.openapi import openapi_document
from emojitune.server.models.loading import model_loader
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.models import FineTunedModel, ModelStore
from emojitune.store.scope import DEFAULT_PROJECT, EVERY_PROJECT

KEY = "sk-fuzz"
TUNED = "ft:gpt-3.5-turbo-0125:local:fuzz:abcdefgh"
LABELS = ("(party)", "(devil)", "(yawn)", "(yawningface)")
_PATIENCE = 60  # seconds, for one answer
_CHAT = {
    "model": "@model",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 2,
    "store": True,
}
_BATCHED = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": _CHAT}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; `failure` is what the log says of it, where that is an error."""

    status: int
    kind: str
    body: bytes
    failure: str


class World:
    """Answers requests, one after the other, and knows an id of every kind."""

    def __init__(self, app: FastAPI, runner: asyncio.Runner, log: "_Failures") -> None:
        self._app = app
        self._runner = runner
        self._log = log
        self.document = openapi_document(app)
        self.ids: dict[str, str] = {}
        self._bodies = {
            operation.path: jsonschema.Draft202012Validator(
                {**operation.body, "components": self.document["components"]}
            )
            for operation in operations(self.document)
            if operation.body is not None
        }
        for kind in ("file", "batch_file", "upload", "job", "model", *_NEEDING_A_MODEL):
            self.make(kind)

    def send(self, asked: Asked) -> Answer:
        """The answer to a request, with an id of its kind for every `@kind` in it."""
        content = asked.content
        if not isinstance(content, bytes):
            content = json.dumps(self._known(content)).encode()
        self._log.told.clear()
        exchange = self._exchange(asked, self._url(asked.path), self._url(asked.query), content)
        answer = self._runner.run(asyncio.wait_for(exchange, _PATIENCE))
        self._renew(asked, answer)
        return answer

    async def _exchange(self, asked: Asked, path: str, query: str, content: bytes) -> Answer:
        headers = [("authorization", f"Bearer {KEY}".encode()), *asked.headers]
        pieces = [content[at : at + asked.cut] for at in range(0, len(content), asked.cut)] or [b""]
        status, kind, body = 0, "", bytearray()

        async def receive() -> Message:
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            await asyncio.Event().wait()  # the client stays until it has its answer
            raise AssertionError("nobody sets that event")

        async def send(message: Message) -> None:
            nonlocal status, kind
            if message["type"] == "http.response.start":
                status = message["status"]
                kind = dict(message["headers"]).get(b"content-type", b"").decode()
            body.extend(message.get("body", b""))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": asked.method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value) for name, value in headers],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }
        await self._app(scope, receive, send)
        return Answer(status, kind, bytes(body), "\n".join(self._log.told))

    def _known(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("@"):
            return self.ids.get(value[1:], value)
        if isinstance(value, list):
            return [self._known(inner) for inner in value]
        if isinstance(value, dict):
            return {key: self._known(inner) for key, inner in value.items()}
        return value

    def _url(self, part: str) -> str:
        return _ID.sub(lambda found: quote(self.ids.get(found[1], found[0]), safe=""), part)

    def _renew(self, asked: Asked, answer: Answer) -> None:
        """What was deleted, or has ended, is made anew."""
        ended = asked.method == "DELETE" or asked.path.endswith(("/complete", "/cancel"))
        if answer.status == 200 and ended:
            self.make(_ID.findall(asked.path)[-1])

    def make(self, kind: str) -> None:
        """Something of this kind, which its id then stands for."""
        if kind == "model":
            self._register_model()
            return
        answer = self.send(_MADE_BY[kind])
        assert answer.status == 200, f"{kind}: {answer.body!r}"
        made = json.loads(answer.body)
        self.ids[kind] = made["data"][0]["id"] if kind == "permission" else made["id"]
        if kind == "upload":
            self.make("part")

    def _register_model(self) -> None:
        context: RequestContext = self._app.state.context_for(DEFAULT_PROJECT)
        base = context.settings.base_model
        make_adapter(Path(base), context.settings.adapters / "fuzz", 1, LABELS)
        hosted, job = TUNED.split(":")[1], self.ids["job"]
        context.stores.models.register(FineTunedModel(TUNED, 1, job, base, hosted, "fuzz"))
        self.ids["model"] = TUNED

    def faults(self, asked: Asked, answer: Answer) -> list[str]:
        """What is promised of every answer, and not kept by this one."""
        where = f"{asked.method} {asked.path}: {answer.status}"
        if answer.failure or not 200 <= answer.status < 500:
            return [f"{where} {answer.body[:300]!r} {answer.failure}"]
        try:
            self._check(asked, answer)
        except (AssertionError, LookupError, ValueError, jsonschema.ValidationError) as error:
            return [f"{where}: {error}"]
        return []

    def _check(self, asked: Asked, answer: Answer) -> None:
        path = unquote(asked.path)
        if answer.kind == "application/octet-stream":
            assert path.endswith("/content"), "bytes where an object should be"
            return
        for reply in replies_of(answer.kind, answer.body):
            schemas.check(reply, path)
            if answer.status >= 400:
                jsonschema.validate(reply, self.document["components"]["schemas"]["Error"])
        if answer.status < 400 and not isinstance(asked.content, bytes):
            self._check_described(asked)

    def _check_described(self, asked: Asked) -> None:
        """What is accepted must be what the description says, but for null, which is absent."""
        body, validator = self._known(asked.content), self._bodies[asked.template]
        if not validator.is_valid(body):
            validator.validate(_without_nulls(body))


class _Failures(logging.Handler):
    """What is logged as an error: the tracebacks that no client sees."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(logging.Formatter().format(record))


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """A world whose home is in `folder`."""
    base = make_tiny_base(folder / "base").resolve()
    settings = Settings(
        home=folder / "home",
        cache=folder / "cache",
        api_key=KEY,
        base_model=str(base),
        device="cpu",
        dtype="float32",
        max_file_bytes=1_000_000,
    )
    database = open_database(settings.home)
    loader = model_loader(settings, ModelStore(database, EVERY_PROJECT))

    def load(name: str, get: GetModel) -> InferenceModel:
        if is_fine_tuned(name) or name == str(base):
            return loader(name, get)
        raise ModelError("Nothing is fetched here.", code="model_unavailable")

    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=load)
    failures = _Failures()
    logging.getLogger("emojitune").addHandler(failures)
    with asyncio.Runner() as runner:
        lifespan = app.router.lifespan_context(app)
        runner.run(lifespan.__aenter__())
        try:
            yield World(app, runner, failures)
        finally:
            runner.run(lifespan.__aexit__(None, None, None))
            logging.getLogger("emojitune").removeHandler(failures)
            database.close()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _json(path: str, content: Any, method: str = "POST") -> Asked:
    return Asked(method, path, content=content)


def _form(path: str, **fields: str) -> Asked:
    """A form whose last field is a file."""
    *_, last = fields
    parts = "".join(
        f'--limit\r\nContent-Disposition: form-data; name="{name}"'
        + ('; filename="a"' if name == last else "")
        + f"\r\n\r\n{value}\r\n"
        for name, value in fields.items()
    )
    kind = b"multipart/form-data; boundary=limit"
    return Asked("POST", path, "", (("content-type", kind),), f"{parts}--limit--\r\n".encode())


_ID = re.compile(r"(?:@|%40)(\w+)")
_GRANT: dict[str, Any] = {"project_ids": ["other"]}
_ANNOUNCED = {"filename": "a", "purpose": "user_data", "bytes": 3, "mime_type": "text/plain"}
_JOB = {"model": "gpt-3.5-turbo", "training_file": "@file"}
_BATCH = {"input_file_id": "@batch_file", "endpoint": _BATCHED["url"], "completion_window": "24h"}

_NEEDING_A_MODEL = ("permission", "completion", "response", "batch")
_MADE_BY = {
    "file": _form("/v1/files", purpose="fine-tune", file='{"messages": []}\n'),
    "batch_file": _form("/v1/files", purpose="batch", file=json.dumps(_BATCHED) + "\n"),
    "upload": _json("/v1/uploads", _ANNOUNCED),
    "part": _form("/v1/uploads/@upload/parts", data="abc"),
    "job": _json("/v1/fine_tuning/jobs", _JOB),
    "permission": _json("/v1/fine_tuning/checkpoints/@model/permissions", _GRANT),
    "completion": _json("/v1/chat/completions", _CHAT),
    "response": _json("/v1/responses", {"model": "@model", "input": "hi"}),
    "batch": _json("/v1/batches", _BATCH),
}
