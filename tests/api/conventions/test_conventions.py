"""Conventions of all endpoints: the key, the headers, the error object."""

import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import schemas
from fastapi import FastAPI
from openai import AuthenticationError, OpenAI
from response_checks import assert_standard_headers, error_of

from emojitune.server.docs import page
from emojitune.server.docs.openapi import openapi_document


def test_health_needs_no_key(server) -> None:
    response = httpx2.get(server.url.removesuffix("/v1") + "/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})
    assert_standard_headers(response)


@pytest.mark.parametrize("path", ["/models", "/nothing", "/files/file-x/content"])
def test_every_path_needs_a_key(server, path: str) -> None:
    response = httpx2.get(server.url + path)
    assert response.status_code == 401
    error = error_of(response)
    assert error["message"].startswith("You didn't provide an API key.")
    assert (error["type"], error["code"]) == ("invalid_request_error", None)


def test_a_wrong_key_is_refused_and_never_echoed(server) -> None:
    with (
        OpenAI(base_url=server.url, api_key="sk-wrong-secret", max_retries=0) as stranger,
        pytest.raises(AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"
    assert "Incorrect API key provided" in str(caught.value)
    assert "wrong-secret" not in str(caught.value)


@pytest.mark.parametrize("header", ["Basic abc", "Bearer", "sk-test-key", "Bearer ü"])
def test_odd_authorization_headers_are_refused(server, header: str) -> None:
    headers = [(b"authorization", header.encode())]
    assert httpx2.get(server.url + "/models", headers=headers).status_code == 401


def test_an_unknown_path_has_openais_error(http: httpx2.Client) -> None:
    for path in ("/nothing", "/files/", "/fine_tuning/jobs/"):
        response = http.get(path)
        assert response.status_code == 404, path
        error_of(response)
    assert error_of(http.get("/nothing"))["message"] == "Invalid URL (GET /v1/nothing)"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/fine_tuning/jobs", "/v1/fine_tuning/jobs"),
        ("/files/file-1", "/v1/files/file-1"),
        ("/v1/v1/models", "/v1/models"),
    ],
)
def test_a_wrong_base_url_is_explained(http: httpx2.Client, path: str, meant: str) -> None:
    response = http.get(str(http.base_url).removesuffix("/v1/") + path)
    assert response.status_code == 404
    message = error_of(response)["message"]
    assert message.startswith(f"Invalid URL (GET {path}). Did you mean {meant}? ")
    assert "ends in /v1" in message


@pytest.mark.parametrize("path", ["/chat/completions", "/files"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_a_compressed_body_is_refused(http: httpx2.Client, path: str, encoding: str) -> None:
    kind = "multipart/form-data; boundary=x" if path == "/files" else "application/json"
    headers = {"content-encoding": encoding, "content-type": kind}
    response = http.post(path, content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 400
    error = error_of(response)
    assert error["code"] == "unsupported_content_encoding"
    assert f"Content-Encoding: {encoding}" in error["message"].replace("'", "")


def test_a_wrong_method_has_openais_error(http: httpx2.Client) -> None:
    response = http.put("/files")
    assert response.status_code == 405
    assert error_of(response)["message"].startswith("Not allowed to PUT on /v1/files.")


def test_an_invalid_query_is_a_400(http: httpx2.Client) -> None:
    response = http.get("/files", params={"limit": "many"})
    assert response.status_code == 400
    error = error_of(response)
    assert (error["param"], error["code"]) == ("limit", "invalid_type")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": NaN}',
        b'{"model": "\\ud800"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"a": 1} trailing',
    ],
)
def test_bodies_that_are_not_json_are_a_400(http: httpx2.Client, body: bytes) -> None:
    response = http.post("/chat/completions", content=body)
    assert response.status_code == 400
    assert error_of(response)["message"].startswith("We could not parse the JSON body")


def test_a_body_that_is_not_an_object_is_a_400(http: httpx2.Client) -> None:
    response = http.post("/fine_tuning/jobs", content=b"[]")
    assert response.status_code == 400
    assert "expected an object, but got an array" in error_of(response)["message"]


def test_a_huge_body_is_a_413(http: httpx2.Client) -> None:
    response = http.post("/chat/completions", content=b" " * (17 * 1024 * 1024))
    assert response.status_code == 413
    error_of(response)


def test_the_sdk_finds_the_request_id(client: OpenAI) -> None:
    assert client.models.retrieve("gpt-3.5-turbo")._request_id.startswith("req_")


@pytest.mark.parametrize(
    ("path", "kind"), [("/docs", "text/html; charset=utf-8"), ("/openapi.json", "application/json")]
)
def test_the_description_of_the_api_needs_no_key(server, path: str, kind: str) -> None:
    response = httpx2.get(server.url.removesuffix("/v1") + path)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)
    assert "/v1/chat/completions" in response.text
    assert_standard_headers(response)


def test_the_description_of_the_api_is_made_once(server, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FastAPI] = []

    def count(app: FastAPI) -> dict[str, Any]:
        made.append(app)
        return openapi_document(app)

    monkeypatch.setattr(page, "openapi_document", count)
    urls = [server.url.removesuffix("/v1") + path for path in ("/docs", "/openapi.json")] * 4
    with ThreadPoolExecutor(len(urls)) as clients:
        statuses = [response.status_code for response in clients.map(httpx2.get, urls)]
    assert statuses == [200] * len(urls)
    assert len(made) <= 1  # none, if an earlier test asked for it


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n\r\n",  # because there is no Host header
        b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_http_gets_an_error_object(server, sent: bytes) -> None:
    received = raw_response(server, sent)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"401")
    assert b"\r\ncontent-type: application/json\r\n" in head.lower() + b"\r\n"
    schemas.check(json.loads(body), "")


def raw_response(server, sent: bytes) -> bytes:
    """The bytes that are received until the server closes the connection."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_request_that_turns_malformed_gets_one_response(
    server, caplog: pytest.LogCaptureFixture
) -> None:
    """The application has the request's headers by then, and responds itself."""
    log = logging.getLogger("uvicorn.error")
    log.addHandler(caplog.handler)
    try:
        head = b"POST /v1/files HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert raw_response(server, head + b"zz\r\n").count(b"HTTP/1.1 ") == 1
        assert httpx2.get(server.url + "/models").status_code == 401
    finally:
        log.removeHandler(caplog.handler)
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []
