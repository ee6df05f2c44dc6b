"""The entire application in this process, with the tiny model and one object of every kind."""

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
from api_requests import ApiRequest, operations
from fakes import FakeDispatcher
from fastapi import FastAPI
from schema_middleware import json_objects
from starlette.types import Message
from tiny_model import make_adapter, make_tiny_base

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
_TIMEOUT = 60  # seconds, for one response
_CHAT = {
    "model": "@model",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 2,
    "store": True,
}
_BATCHED = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": _CHAT}


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A complete response; `failure` is what was logged as an error while it was made."""

    status: int
    content_type: str
    body: bytes
    failure: str


class Harness:
    """Sends requests to the application one by one, and holds an id of every kind of object."""

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
            self.create(kind)

    def send(self, request: ApiRequest) -> ApiResponse:
        """Send a request after replacing every `@kind` in it by an id of that kind."""
        content = request.content
        if not isinstance(content, bytes):
            content = json.dumps(self._with_ids(content)).encode()
        self._log.records.clear()
        exchange = self._exchange(
            request, self._url_with_ids(request.path), self._url_with_ids(request.query), content
        )
        response = self._runner.run(asyncio.wait_for(exchange, _TIMEOUT))
        self._recreate(request, response)
        return response

    async def _exchange(
        self, request: ApiRequest, path: str, query: str, content: bytes
    ) -> ApiResponse:
        headers = [("authorization", f"Bearer {KEY}".encode()), *request.headers]
        starts = range(0, max(1, len(content)), request.chunk_size)
        chunks = [content[start : start + request.chunk_size] for start in starts]
        status, content_type, body = 0, "", bytearray()

        async def receive() -> Message:
            if chunks:
                chunk = chunks.pop(0)
                return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}
            await asyncio.Event().wait()  # the client stays until it has its response
            raise AssertionError("nobody sets that event")

        async def send(message: Message) -> None:
            nonlocal status, content_type
            if message["type"] == "http.response.start":
                status = message["status"]
                content_type = dict(message["headers"]).get(b"content-type", b"").decode()
            body.extend(message.get("body", b""))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
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
        return ApiResponse(status, content_type, bytes(body), "\n".join(self._log.records))

    def _with_ids(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("@"):
            return self.ids.get(value[1:], value)
        if isinstance(value, list):
            return [self._with_ids(inner) for inner in value]
        if isinstance(value, dict):
            return {key: self._with_ids(inner) for key, inner in value.items()}
        return value

    def _url_with_ids(self, part: str) -> str:
        return _ID.sub(lambda found: quote(self.ids.get(found[1], found[0]), safe=""), part)

    def _recreate(self, request: ApiRequest, response: ApiResponse) -> None:
        """Create another object in place of one that was deleted or has ended."""
        ended = request.method == "DELETE" or request.path.endswith(("/complete", "/cancel"))
        if response.status == 200 and ended:
            self.create(_ID.findall(request.path)[-1])

    def create(self, kind: str) -> None:
        """Create an object of this kind and hold its id."""
        if kind == "model":
            self._register_model()
            return
        response = self.send(_CREATED_BY[kind])
        assert response.status == 200, f"{kind}: {response.body!r}"
        created = json.loads(response.body)
        self.ids[kind] = created["data"][0]["id"] if kind == "permission" else created["id"]
        if kind == "upload":
            self.create("part")

    def _register_model(self) -> None:
        context: RequestContext = self._app.state.context_for(DEFAULT_PROJECT)
        base = context.settings.base_model
        make_adapter(Path(base), context.settings.adapters / "fuzz", 1, LABELS)
        hosted, job = TUNED.split(":")[1], self.ids["job"]
        context.stores.models.register(FineTunedModel(TUNED, 1, job, base, hosted, "fuzz"))
        self.ids["model"] = TUNED

    def violations(self, request: ApiRequest, response: ApiResponse) -> list[str]:
        """The promises about every response that this one breaks."""
        where = f"{request.method} {request.path}: {response.status}"
        if response.failure or not 200 <= response.status < 500:
            return [f"{where} {response.body[:300]!r} {response.failure}"]
        try:
            self._check(request, response)
        except (AssertionError, LookupError, ValueError, jsonschema.ValidationError) as error:
            return [f"{where}: {error}"]
        return []

    def _check(self, request: ApiRequest, response: ApiResponse) -> None:
        path = unquote(request.path)
        if response.content_type == "application/octet-stream":
            assert path.endswith("/content"), "bytes where an object should be"
            return
        for reply in json_objects(response.content_type, response.body):
            schemas.check(reply, path)
            if response.status >= 400:
                jsonschema.validate(reply, self.document["components"]["schemas"]["Error"])
        if response.status < 400 and not isinstance(request.content, bytes):
            self._check_described(request)

    def _check_described(self, request: ApiRequest) -> None:
        """Check that an accepted body fits the description, where null counts as absent."""
        body, validator = self._with_ids(request.content), self._bodies[request.template]
        if not validator.is_valid(body):
            validator.validate(_without_nulls(body))


class _Failures(logging.Handler):
    """Collects logged errors: the tracebacks that no client sees."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(logging.Formatter().format(record))


@contextmanager
def open_harness(folder: Path) -> Iterator[Harness]:
    """A harness with its home in `folder`."""
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
            yield Harness(app, runner, failures)
        finally:
            runner.run(lifespan.__aexit__(None, None, None))
            logging.getLogger("emojitune").removeHandler(failures)
            database.close()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _json(path: str, content: Any, method: str = "POST") -> ApiRequest:
    return ApiRequest(method, path, content=content)


def _form(path: str, **fields: str) -> ApiRequest:
    """A form whose last field is a file."""
    *_, last = fields
    parts = "".join(
        f'--limit\r\nContent-Disposition: form-data; name="{name}"'
        + ('; filename="a"' if name == last else "")
        + f"\r\n\r\n{value}\r\n"
        for name, value in fields.items()
    )
    content_type = b"multipart/form-data; boundary=limit"
    return ApiRequest(
        "POST", path, "", (("content-type", content_type),), f"{parts}--limit--\r\n".encode()
    )


_ID = re.compile(r"(?:@|%40)(\w+)")
_GRANT: dict[str, Any] = {"project_ids": ["other"]}
_UPLOAD = {"filename": "a", "purpose": "user_data", "bytes": 3, "mime_type": "text/plain"}
_JOB = {"model": "gpt-3.5-turbo", "training_file": "@file"}
_BATCH = {"input_file_id": "@batch_file", "endpoint": _BATCHED["url"], "completion_window": "24h"}

_NEEDING_A_MODEL = ("permission", "completion", "response", "batch")
_CREATED_BY = {
    "file": _form("/v1/files", purpose="fine-tune", file='{"messages": []}\n'),
    "batch_file": _form("/v1/files", purpose="batch", file=json.dumps(_BATCHED) + "\n"),
    "upload": _json("/v1/uploads", _UPLOAD),
    "part": _form("/v1/uploads/@upload/parts", data="abc"),
    "job": _json("/v1/fine_tuning/jobs", _JOB),
    "permission": _json("/v1/fine_tuning/checkpoints/@model/permissions", _GRANT),
    "completion": _json("/v1/chat/completions", _CHAT),
    "response": _json("/v1/responses", {"model": "@model", "input": "hi"}),
    "batch": _json("/v1/batches", _BATCH),
}
