"""The benchmark of stalls: what it takes for a broken bound, and what for a kept one."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from benchmarks.stalls import verdict
from benchmarks.stalls.verdict import Row, Usage

KEPT = Row(
    "attack",
    polls={"/healthz": [0.01] * 100, "/v1/models": [0.02] * 100},
    usual=[0.1] * 20,
    chats=[0.2] * 10,
    failures=[],
    answers={"400 [too] many": 3},
    quiet=0.3,
    before=Usage(700.0, 20),
    peak_mb=2000.0,
    after=Usage(760.0, 22),
)


def test_a_row_within_its_bounds_breaks_none() -> None:
    assert verdict.broken(KEPT) == []


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({"polls": {"/healthz": [0.01] * 100 + [3.0]}}, "/healthz p99 over 100 ms"),
        ({"chats": [0.2] * 99 + [0.41]}, "chat over 4 × its usual time"),
        ({"chats": []}, "chat over 4 × its usual time"),
        ({"failures": ["chat: 503"]}, "honest requests failed"),
        ({"quiet": 1.1}, "computed for over 1 s after the client left"),
        ({"quiet": None}, "computed for over 1 s after the client left"),
        ({"after": Usage(801.0, 20)}, "over 100 MB kept"),
        ({"after": Usage(700.0, 29)}, "descriptors kept"),
        ({"died": True}, "the server ended"),
    ],
)
def test_each_bound_can_be_broken_alone(change: dict[str, Any], bound: str) -> None:
    assert verdict.broken(replace(KEPT, **change)) == [bound]


def test_a_stall_counts_for_every_request_that_was_due_meanwhile() -> None:
    # One in a thousand took 2 s, in which 40 were due: over 1 % of all waited.
    assert verdict.p99([0.01] * 1000 + [2.0]) > 1.0
    assert verdict.p99([0.01] * 1000 + [0.04]) == pytest.approx(0.01)
    assert verdict.p99([]) == 0.0


def test_growth_is_measured_from_the_second_sixth_to_the_last() -> None:
    assert verdict.growth([0.0] * 10 + [500.0] * 50) == 0.0
    assert verdict.growth([float(n) for n in range(60)]) == 40.0
    assert verdict.growth([1.0]) == 0.0


def test_the_table_shows_measurements_and_broken_bounds() -> None:
    console = Console(width=240, record=True)
    console.print(verdict.table([KEPT, replace(KEPT, name="other", quiet=None)]))
    *_, kept, other, _ = console.export_text().splitlines()
    for shown in ("10, 20", "100, 200, 200 (2.0 ×)", "0.3 s", "700, 2,000, 760", "[too] many"):
        assert shown in kept
    assert "never" in other
    assert "computed for over 1 s" in other
