"""A short run of everything that is fuzzed, the same on every day; `make fuzz` is the long one."""

from collections.abc import Iterator

import pytest
import wire
from asking import Asked
from hypothesis import HealthCheck, given, settings
from kinds import NAMES, Kind, all_kinds

from emojitune.server.files import routes as files

SHORT = settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Kind]]:
    with all_kinds(tmp_path_factory.mktemp("fuzz")) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
def test_every_promise_is_kept(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]

    @SHORT
    @given(kind.cases)
    def check(case: object) -> None:
        assert kind.faults(case) == []

    check()


def test_a_mistake_of_ours_is_a_fault(
    kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = kinds["described"].faults
    asked = Asked("GET", "/v1/files/@file")
    assert faults(asked) == []
    monkeypatch.setattr(files, "file_object", lambda stored: stored.no_such_thing)
    [fault] = faults(asked)
    assert fault.startswith("GET /v1/files/@file: 500")
    assert "no attribute 'no_such_thing'" in fault


def test_an_answer_of_another_shape_is_a_fault(
    kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "reply", lambda item: files.Response(b"{}"))
    [fault] = kinds["described"].faults(Asked("GET", "/v1/files/@file"))
    assert fault.startswith("GET /v1/files/@file: 200")


def test_every_answer_on_a_connection_is_looked_at() -> None:
    refused = b"HTTP/1.1 401 U\r\nContent-Length: 2\r\n\r\n{}"
    broken = b"HTTP/1.1 500 E\r\nContent-Length: 1\r\n\r\nx"
    assert list(wire.answers(refused + broken, with_bodies=True)) == [(401, b"{}"), (500, b"x")]
    assert list(wire.answers(refused + broken, with_bodies=False)) == [(401, None)]


def test_an_error_on_the_wire_without_an_object_is_a_fault(
    kinds: dict[str, Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    assert kinds["wire"].faults(sent) == []
    empty = b"HTTP/1.1 400 B\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.setattr(wire, "_heard", lambda sent, url: empty)
    [fault] = kinds["wire"].faults(sent)
    assert fault.startswith("400: ")
