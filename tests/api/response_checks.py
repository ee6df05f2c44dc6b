"""Assertions about every response."""

import re

import httpx2


def assert_standard_headers(response: httpx2.Response) -> None:
    """Assert the headers that every response has."""
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.headers["openai-processing-ms"].isdigit()
    assert response.headers["openai-version"] == "2020-10-01"
    assert response.headers["openai-organization"] == "local"


def error_of(response: httpx2.Response) -> dict[str, str | None]:
    """The error object of a response, whose shape is asserted."""
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    error: dict[str, str | None] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert_standard_headers(response)
    return error
