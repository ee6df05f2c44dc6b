"""The lines of a batch's output and error files."""

import uuid
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from emojitune.errors import InvalidRequestError
from emojitune.server.batches.input import BatchRequest
from emojitune.server.http.asgi_client import AsgiResponse
from emojitune.server.http.errors import error_object
from emojitune.server.http.json_responses import encode_json
from emojitune.store.batches import BatchResult, TokenUsage
from emojitune.store.ids import new_id


def response_result(line: int, request: BatchRequest, http_response: AsgiResponse) -> BatchResult:
    """The result of a request that was sent to its endpoint; errors go to the error file."""
    body = from_json(http_response.body)
    response = {
        "status_code": http_response.status,
        "request_id": http_response.headers["x-request-id"],
        "body": body,
    }
    return _result(line, request, response, None, _usage(body.get("usage") or {}))


def stream_refused_result(line: int, request: BatchRequest) -> BatchResult:
    """The result of a streaming request, which a batch refuses."""
    error = InvalidRequestError(
        "A batch has no streams: leave 'stream' out.", code="unsupported_value", param="stream"
    )
    request_id = f"req_{uuid.uuid4().hex}"
    response = {"status_code": 400, "request_id": request_id, "body": error_object(error)}
    return _result(line, request, response, None)


def not_run_result(line: int, request: BatchRequest, code: str, message: str) -> BatchResult:
    """The result of a request that was not run."""
    return _result(line, request, None, {"code": code, "message": message})


def _result(
    line: int,
    request: BatchRequest,
    response: Mapping[str, Any] | None,
    error: Mapping[str, str] | None,
    usage: TokenUsage = TokenUsage(),  # noqa: B008  # it is frozen
) -> BatchResult:
    content = {
        "id": new_id("batch_req_"),
        "custom_id": request.custom_id,
        "response": response,
        "error": error,
    }
    failed = response is None or response["status_code"] >= 400
    return BatchResult(line, failed, encode_json(content).decode(), usage)


def _usage(usage: Mapping[str, Any]) -> TokenUsage:
    """The token usage of a response: chat has prompt and completion, Responses input and output."""
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    written = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return TokenUsage(
        input_tokens=usage.get("prompt_tokens") or usage.get("input_tokens") or 0,
        cached_tokens=read.get("cached_tokens") or 0,
        output_tokens=usage.get("completion_tokens") or usage.get("output_tokens") or 0,
        reasoning_tokens=written.get("reasoning_tokens") or 0,
    )
