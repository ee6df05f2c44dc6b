"""A short deterministic run of all fuzz targets; `make fuzz` is the long one."""

from collections.abc import Iterator

import pytest
import raw_http
from api_requests import ApiRequest
from hypothesis import HealthCheck, given, settings
from targets import TARGET_NAMES, FuzzTarget, open_targets

from emojitune.server.files import routes as files

SHORT = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FuzzTarget]]:
    with open_targets(tmp_path_factory.mktemp("fuzz")) as opened:
        yield opened


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_every_promise_is_kept(targets: dict[str, FuzzTarget], name: str) -> None:
    target = targets[name]

    @SHORT
    @given(target.cases)
    def check(case: object) -> None:
        assert target.violations(case) == []

    check()


def test_a_bug_of_the_server_is_a_violation(
    targets: dict[str, FuzzTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    violations = targets["described"].violations
    request = ApiRequest("GET", "/v1/files/@file")
    assert violations(request) == []
    monkeypatch.setattr(files, "file_object", lambda stored: stored.no_such_thing)
    [violation] = violations(request)
    assert violation.startswith("GET /v1/files/@file: 500")
    assert "no attribute 'no_such_thing'" in violation


def test_a_response_of_another_shape_is_a_violation(
    targets: dict[str, FuzzTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "json_response", lambda item: files.Response(b"{}"))
    [violation] = targets["described"].violations(ApiRequest("GET", "/v1/files/@file"))
    assert violation.startswith("GET /v1/files/@file: 200")


def test_every_response_on_a_connection_is_checked() -> None:
    refused = b"HTTP/1.1 401 U\r\nContent-Length: 2\r\n\r\n{}"
    broken = b"HTTP/1.1 500 E\r\nContent-Length: 1\r\n\r\nx"
    assert list(raw_http.responses(refused + broken, with_bodies=True)) == [
        (401, b"{}"),
        (500, b"x"),
    ]
    assert list(raw_http.responses(refused + broken, with_bodies=False)) == [(401, None)]


def test_a_raw_error_response_without_an_error_object_is_a_violation(
    targets: dict[str, FuzzTarget], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    assert targets["raw_http"].violations(sent) == []
    empty = b"HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.setattr(raw_http, "_received", lambda sent, url: empty)
    [violation] = targets["raw_http"].violations(sent)
    assert violation.startswith("400: ")
