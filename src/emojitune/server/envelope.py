"""What every response carries: a request id, the time it took, the version and the organization.

Plain ASGI, so that streams pass through unbuffered; the last line of defence against our own bugs.
"""

import logging
import uuid
from time import perf_counter

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emojitune.server.errors import unexpected

logger = logging.getLogger(__name__)


class Envelope:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, organization: str) -> None:
        self._app = app
        self._organization = organization

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
        begun, started = perf_counter(), False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round((perf_counter() - begun) * 1000))
                headers["openai-version"] = "2020-10-01"
                headers["openai-organization"] = self._organization
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            if started:  # too late for another status: uvicorn logs it and cuts the connection
                raise
            logger.exception("%s %s failed (%s)", scope["method"], scope["path"], request_id)
            await unexpected()(scope, receive, send_with_headers)
