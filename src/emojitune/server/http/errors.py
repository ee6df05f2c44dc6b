"""Errors over HTTP: a status and OpenAI's error object for each exception, never a traceback."""

import math
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from emojitune.errors import DatasetError, EmojituneError, InvalidRequestError, NotFoundError
from emojitune.server.http.json_bodies import BodyTooLargeError, to_openai_error
from emojitune.server.http.json_responses import encode_json
from emojitune.store.files import FileTooLargeError


class AuthenticationError(EmojituneError):
    """No key, or one that this server does not know."""


class RateLimitError(EmojituneError):
    """A key has used up one of its rate limits.

    Args:
        unit: The limited quantity, which is the `type` of the error object: "requests" or "bytes".
        retry_after: The seconds until a request is admitted again.
    """

    def __init__(self, message: str, *, unit: str, retry_after: float) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.unit = unit
        self.retry_after = retry_after


# The first match counts; errors that are not the client's come last.
_STATUSES: tuple[tuple[type[EmojituneError], int], ...] = (
    (AuthenticationError, 401),
    (RateLimitError, 429),
    (NotFoundError, 404),
    (FileTooLargeError, 413),
    (BodyTooLargeError, 413),
    (InvalidRequestError, 400),
    (DatasetError, 400),
    (EmojituneError, 503),
)


def error_object(error: EmojituneError) -> dict[str, dict[str, str | None]]:
    """OpenAI's error object, always with all four keys."""
    kind = "server_error" if _status(error) >= 500 else "invalid_request_error"
    if isinstance(error, RateLimitError):
        kind = error.unit
    content = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": content}


def error_response(error: EmojituneError, status: int | None = None) -> Response:
    """The response that reports `error`."""
    code = status or _status(error)
    headers: dict[str, str] = {}
    if code >= 500:  # the official clients would retry, and a retry cures none of ours
        headers["x-should-retry"] = "false"
    if isinstance(error, RateLimitError):
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    return Response(encode_json(error_object(error)), code, headers, "application/json")


def internal_error_response() -> Response:
    """The response to a bug of ours, whose details belong in the log."""
    message = "The server had an error while processing your request. Its log says more."
    return error_response(EmojituneError(message), 500)


def register_handlers(app: FastAPI) -> None:
    """Replace FastAPI's error responses by OpenAI's."""
    app.add_exception_handler(EmojituneError, _handle_emojitune_error)
    app.add_exception_handler(HTTPException, _handle_http_exception)
    app.add_exception_handler(RequestValidationError, _handle_validation_error)


def _status(error: EmojituneError) -> int:
    return next(status for kind, status in _STATUSES if isinstance(error, kind))


async def _handle_emojitune_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, EmojituneError)
    return error_response(error)


async def _handle_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_line = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        message = f"Invalid URL ({request_line}){_suggestion(request)}"
    elif error.status_code == 405:
        method, path = request.method, request.url.path
        message = (
            f"Not allowed to {method} on {path}. "
            "(HINT: Perhaps you meant to use a different HTTP method?)"
        )
    else:
        message = error.detail
    response = error_response(InvalidRequestError(message), error.status_code)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = _allowed_methods(request)
    return response


def _suggestion(request: Request) -> str:
    """A hint at the path that a client with a wrong base URL meant, if there is one."""
    path = request.url.path
    suggested = path.removeprefix("/v1") if path.startswith("/v1/v1/") else f"/v1{path}"
    if not _routes(request, suggested):
        return ""
    return f". Did you mean {suggested}? The base URL of this server ends in /v1, and has it once."


def _allowed_methods(request: Request) -> str:
    """All methods of this path: Starlette names only those of the first route that has it."""
    methods = {method for route in _routes(request) for method in route.methods or ()}
    return ", ".join(sorted(methods))


def _routes(request: Request, path: str | None = None) -> list[Route]:
    """The routes of a path, by default the request's, for any method."""
    scope = {**request.scope, "path": path or request.scope["path"]}
    routes = (context.original_route for context in iter_route_contexts(request.app.routes))
    return [
        route
        for route in routes
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
    ]


async def _handle_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # FastAPI puts "query" or "path" before the name. In a query numbers are text, too.
    errors = [{**one, "input": _as_int(one.get("input"))} for one in error.errors()]
    return error_response(to_openai_error(errors, skip=1))


def _as_int(value: Any) -> Any:
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        return value
