"""The access log, and the headers of every response: request id, time, version, organization.

Plain ASGI, so that streams pass through unbuffered; the last line of defence against our own bugs.
Each request becomes a line of the log once its response has been sent in full.
"""

import logging
import uuid
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emojitune.server.edge.logs import BodyCapture
from emojitune.server.http.caller import Caller
from emojitune.server.http.errors import internal_error_response

logger = logging.getLogger(__name__)


class AccessLogMiddleware:
    """The outermost ASGI middleware."""

    def __init__(self, app: ASGIApp, organization: str, *, log_content: bool) -> None:
        self._app = app
        self._organization = organization
        self._log_content = log_content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        content = BodyCapture(receive, send) if self._log_content else None
        if content is not None:
            receive, send = content.receive, content.send
        response = _ResponseRecorder(send, self._organization)
        try:
            await self._app(scope, receive, response.send)
        except Exception:
            # Too late for another response: uvicorn logs the error and closes the connection.
            if response.status is not None:
                raise
            failed = (scope["method"], scope["path"], response.request_id)
            logger.exception("%s %s failed (%s)", *failed)
            await internal_error_response()(scope, receive, response.send)
        finally:
            more = content.fields if content is not None else {}
            fields = {**response.fields, **_request_fields(scope), **more}
            logger.info("request", extra={"fields": fields})


class _ResponseRecorder:
    """Adds headers to a response as it is sent, and records its status and time."""

    def __init__(self, send: Send, organization: str) -> None:
        self._send = send
        self._organization = organization
        self._started_at = perf_counter()
        self.request_id = f"req_{uuid.uuid4().hex}"
        self.status: int | None = None

    @property
    def fields(self) -> Mapping[str, Any]:
        return {"request_id": self.request_id, "status": self.status, "ms": self._milliseconds()}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self.request_id
            headers["openai-processing-ms"] = str(self._milliseconds())
            headers["openai-version"] = "2020-10-01"
            headers["openai-organization"] = self._organization
        await self._send(message)

    def _milliseconds(self) -> int:
        return round((perf_counter() - self._started_at) * 1000)


def _request_fields(scope: Scope) -> Mapping[str, Any]:
    """The request's part of a log line, without the query: filters hold what people wrote."""
    caller: Caller | None = scope.get("caller")
    return {
        "method": scope["method"],
        "path": scope["path"],
        "project": caller and caller.project,
        "key": caller and caller.key_id,
    }
