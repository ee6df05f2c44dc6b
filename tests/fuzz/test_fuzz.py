"""A short run of everything that is fuzzed, the same on every day; `make fuzz` is the long one."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from kinds import NAMES, Kind, all_kinds

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
