"""The log: one JSON object a line, on stderr.

Prompts and replies stay out of it unless a setting asks for them. They may be part of an
exception's message, so of an exception only the type and the traceback's places are logged.
"""

import io
import json
import logging
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from starlette.types import Message, Receive, Send

from emojitune.control_chars import escape_control_json

_MAX_BODY_BYTES = 10_000  # of a request, and of its response

# Of warnings and errors with the same text, this many are logged in each interval. What strangers
# can cause as often as they like has the same text each time.
_MAX_REPETITIONS = 10
_REPETITION_SECONDS = 60.0


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
            if not self._content:  # asyncio's further lines repeat the exception
                line["message"] = line["message"].partition("\n")[0]
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


class RepetitionFilter(logging.Filter):
    """Drops warnings and errors that repeat the same text too often within an interval."""

    def __init__(self) -> None:
        super().__init__()
        self._counts: dict[int, int] = {}  # by the hash of the text
        self._ends_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        if monotonic() >= self._ends_at:
            self._counts = {}
            self._ends_at = monotonic() + _REPETITION_SECONDS
        text = record.getMessage()
        key = hash((record.name, text))
        count = self._counts[key] = self._counts.get(key, 0) + 1
        if count == _MAX_REPETITIONS:
            record.msg, record.args = f"{text} (repetitions are not logged for a while)", ()
        return count <= _MAX_REPETITIONS


class _LineLogger(io.TextIOBase):
    """A text stream that logs each line written to it."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._thread = threading.local()  # each thread writes lines of its own

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        thread = self._thread.__dict__
        if thread.get("logging"):  # the report of a log that cannot be written
            return len(text)
        thread["logging"] = True
        *lines, rest = (thread.get("rest", "") + text).split("\n")
        # A progress bar writes over itself, after each carriage return.
        thread["rest"] = rest[rest.rfind("\r", 0, -1) + 1 :]
        for line in filter(str.strip, lines):
            self._logger.warning("%s", line)
        thread["logging"] = False
        return len(text)


def log_config(*, content: bool) -> dict[str, Any]:
    """The argument of `logging.config.dictConfig`: ours from INFO up, others from WARNING up."""
    handler = {"class": "logging.StreamHandler", "formatter": "lines", "filters": ["repetitions"]}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"lines": {"()": JsonFormatter, "content": content}},
        "filters": {"repetitions": {"()": RepetitionFilter}},
        "handlers": {"stderr": handler},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {
            "emojitune": {"level": "INFO"},
            # It also writes to stderr itself.
            "huggingface_hub": {"propagate": False},
        },
    }


@contextmanager
def stderr_logged() -> Iterator[None]:
    """Log what Python and libraries would write to stderr as text; after `log_config`.

    That is warnings, uncaught exceptions of threads, and the lines of libraries with handlers of
    their own.
    """
    previous = threading.excepthook
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_exception
    try:
        with redirect_stderr(_LineLogger(logging.getLogger("stderr"))):
            yield
    finally:
        threading.excepthook = previous
        logging.captureWarnings(False)


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    error = args.exc_value
    if error is not None:
        logging.getLogger("threading").error("A thread failed", exc_info=error)


def _capture(captured: bytearray, message: Message) -> None:
    captured += message.get("body", b"")[: max(0, _MAX_BODY_BYTES - len(captured))]


def _traceback_places(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__ or error.__context__
    after = f" after {_traceback_places(cause)}" if cause is not None else ""
    return f"{type(error).__name__} at {', '.join(places)}{after}"
