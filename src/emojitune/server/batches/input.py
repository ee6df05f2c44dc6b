"""The input file of a batch: read line by line, and validated before any request is run."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_core import to_json

from emojitune.errors import InvalidRequestError
from emojitune.server.http.json_bodies import MAX_JSON_BYTES, StrictModel, parse_large_json
from emojitune.store.batches import BatchError

MAX_REQUESTS = 50_000
MAX_BYTES = 200 * 1024**2
_MAX_LINE_BYTES = MAX_JSON_BYTES + 64 * 1024  # a request's body, and what is around it
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # which some editors write at the start of a file
_MAX_ERRORS = 100  # more would not help to repair the file


class BatchRequest(StrictModel):
    """One line of the file: a request to run."""

    custom_id: str = Field(min_length=1, description="Your id of the request, unique in the file.")
    method: Literal["POST"] = Field(description="The HTTP method.")
    url: str = Field(description="The endpoint of the batch.")
    body: dict[str, Any] = Field(description="The request body for the endpoint.")

    def body_as_json(self) -> bytes:
        return to_json(self.body)


@dataclass(frozen=True, slots=True)
class InputReport:
    """The result of validation: number of requests, their model if all have the same, errors."""

    total: int
    model: str | None
    errors: tuple[BatchError, ...]


def read_requests(path: Path) -> Iterator[tuple[int, BatchRequest]]:
    """The requests of a validated file, with their line numbers."""
    for line, content in _lines(path):
        yield line, parse_large_json(content, BatchRequest)


def validate_input(path: Path, endpoint: str) -> InputReport:
    """Validate the entire file; the endpoint itself validates the request bodies."""
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
        result = _check_line(line, content, endpoint, names)
        if isinstance(result, BatchRequest):
            model = result.body.get("model")
            models.add(model if isinstance(model, str) else None)
        elif len(errors) < _MAX_ERRORS:
            errors.append(result)
    if not total:
        return _refused("empty_file", "The input file must have at least one request.")
    return InputReport(total, models.pop() if len(models) == 1 else None, tuple(errors))


def _check_line(
    line: int, content: bytes, endpoint: str, names: set[str]
) -> BatchRequest | BatchError:
    if len(content) > _MAX_LINE_BYTES:
        message = f"A line may have at most {_MAX_LINE_BYTES} bytes, and this one has more."
        return BatchError("line_too_long", message, None, line)
    try:
        request = parse_large_json(content, BatchRequest)
    except InvalidRequestError as error:
        # Only a line that is not JSON has no code.
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
    """The lines that are not blank, with their numbers; of one that is too long, the start."""
    with path.open("rb") as file:
        number = 0
        while content := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            rest = content
            while len(rest) > _MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = file.readline(_MAX_LINE_BYTES + 1)
            if number == 1:
                content = content.removeprefix(_BYTE_ORDER_MARK)
            if content and not content.isspace():
                yield number, content
