"""A short run of everything that is fuzzed, the same on every day; `make fuzz` is the long one."""

from collections.abc import Iterator

import pytest
from asking import Asked
from hypothesis import HealthCheck, given, settings
from kinds import NAMES, Kind, all_kinds

from emojitune.server import files

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
