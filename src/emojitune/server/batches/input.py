"""The input file of a batch: read line by line, and checked as a whole before anything is run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_core import to_json

from emojitune.errors import InvalidRequestError
from emojitune.server.http.json_bodies import StrictModel, parse_json
from emojitune.store.batches import BatchError

MAX_REQUESTS = 50_000
MAX_BYTES = 200 * 1024**2
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # some editors begin a file with it
_MAX_ERRORS = 100  # the rest adds nothing for someone who has to mend the file


class BatchRequest(StrictModel):
    """One line: a request to be run."""

    custom_id: str = Field(min_length=1, description="Your name for the request, once in a file.")
    method: Literal["POST"] = Field(description="The HTTP method.")
    url: str = Field(description="The endpoint of the batch.")
    body: dict[str, Any] = Field(description="What the endpoint would be sent.")

    def body_as_json(self) -> bytes:
        return to_json(self.body)


@dataclass(frozen=True, slots=True)
class InputReport:
    """What a file holds: its number of requests, the one model they name, what is wrong."""

    total: int
    model: str | None
    errors: tuple[BatchError, ...]


def read_requests(path: Path) -> Iterator[tuple[int, BatchRequest]]:
    """The requests of a checked file with their lines."""
    for line, content in _lines(path):
        yield line, parse_json(content, BatchRequest)


def validate_input(path: Path, endpoint: str) -> InputReport:
    """Check the whole file; rules of the endpoint itself are left to it."""
    if path.stat().st_size > MAX_BYTES:
        return _refused("file_too_large", f"The input file may have at most {MAX_BYTES} bytes.")
    errors: list[BatchError] = []
    names: set[str] = set()
    models: set[str | None] = set()
    total = 0
    for line, content in _lines(path):
        total += 1
        if total > MAX_REQUESTS:
            return _refused(
                "too_many_requests", f"The input file may have at most {MAX_REQUESTS} requests."
            )
        found = _check_line(line, content, endpoint, names)
        if isinstance(found, BatchRequest):
            model = found.body.get("model")
            models.add(model if isinstance(model, str) else None)
        elif len(errors) < _MAX_ERRORS:
            errors.append(found)
    if not total:
        return _refused("empty_file", "The input file must have at least one request.")
    return InputReport(total, models.pop() if len(models) == 1 else None, tuple(errors))


def _check_line(
    line: int, content: bytes, endpoint: str, names: set[str]
) -> BatchRequest | BatchError:
    try:
        request = parse_json(content, BatchRequest)
    except InvalidRequestError as error:
        # Of all that can be wrong, only what is no JSON has no code.
        message = error.message if error.code else "This line is not parseable as valid JSON."
        return BatchError(error.code or "invalid_json_line", message, error.param, line)
    if request.url != endpoint:
        message = (
            f"The URL of each request must be the endpoint of the batch, {endpoint}, and this one "
            f"is '{request.url[:80]}'."
        )
        return BatchError("invalid_url", message, "url", line)
    if request.custom_id in names:
        message = (
            f"The custom_id '{request.custom_id[:80]}' is a duplicate of another request's: it "
            "must be unique in a batch."
        )
        return BatchError("duplicate_custom_id", message, "custom_id", line)
    names.add(request.custom_id)
    return request


def _refused(code: str, message: str) -> InputReport:
    return InputReport(0, None, (BatchError(code, message, None, None),))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers; blank ones are no requests."""
    with path.open("rb") as file:
        for number, content in enumerate(file, 1):
            if number == 1:
                content = content.removeprefix(_BYTE_ORDER_MARK)
            if content.strip():
                yield number, content
