"""The log: one JSON object a line, on stderr.

Prompts and replies stay out of it unless a setting asks for them. They may be part of an
exception's message, so of an exception only the type and the traceback's places are logged.
"""

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.types import Message, Receive, Send

from emojitune.control_chars import escape_control_json

_MAX_BODY_BYTES = 10_000  # of a request, and of its response


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object, with the fields of `extra={"fields": ...}`."""

    def __init__(self, *, content: bool) -> None:
        super().__init__()
        self._content = content

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
        }
        line |= getattr(record, "fields", {})
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            full = "".join(traceback.format_exception(error))
            line["error"] = full if self._content else _traceback_places(error)
        # The reader may be a terminal: control characters in a path or an error must not reach it.
        return escape_control_json(json.dumps(line, ensure_ascii=False, default=str))


class BodyCapture:
    """Captures the first bytes of a request's and a response's body as they pass."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._request, self._reply = bytearray(), bytearray()

    @property
    def fields(self) -> Mapping[str, str]:
        pairs = (("request", self._request), ("reply", self._reply))
        return {name: bytes(body).decode(errors="replace") for name, body in pairs}

    async def receive(self) -> Message:
        message = await self._receive()
        _capture(self._request, message)
        return message

    async def send(self, message: Message) -> None:
        _capture(self._reply, message)
        await self._send(message)


def log_config(*, content: bool) -> dict[str, Any]:
    """The argument of `logging.config.dictConfig`: ours from INFO up, uvicorn's from WARNING up."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": JsonFormatter, "content": content}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "lines"}},
        "loggers": {
            "emojitune": {"handlers": ["stderr"], "level": "INFO"},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING"},
        },
    }


def _capture(captured: bytearray, message: Message) -> None:
    captured += message.get("body", b"")[: max(0, _MAX_BODY_BYTES - len(captured))]


def _traceback_places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__ or error.__context__
    after = f" after {_traceback_places(cause)}" if cause is not None else ""
    return f"{type(error).__name__} at {', '.join(places)}{after}"
