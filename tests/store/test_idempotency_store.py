"""Repeated requests: the rule of `store/idempotency.py`, line by line."""

from dataclasses import replace
from itertools import count

import pytest
from clocks import ManualClock

from emojitune.errors import InvalidRequestError
from emojitune.store.database import Database
from emojitune.store.idempotency import (
    ANSWERED_SECONDS,
    UNANSWERED_SECONDS,
    Attempt,
    IdempotencyStore,
)

FIRST = Attempt("/v1/fine_tuning/jobs", "digest")
SECOND, THIRD = replace(FIRST, number=1), replace(FIRST, number=2)


@pytest.fixture
def idempotency(database: Database) -> IdempotencyStore:
    return IdempotencyStore(database, "default")


@pytest.fixture
def reserve(idempotency: IdempotencyStore):
    numbers = count(1)
    return lambda attempt: idempotency.reserve(attempt, lambda: f"id-{next(numbers)}").resource_id


def test_two_requests_create_two_resources(reserve) -> None:
    assert [reserve(FIRST), reserve(FIRST)] == ["id-1", "id-2"]


def test_a_repetition_belongs_to_the_first_attempt(reserve, idempotency: IdempotencyStore) -> None:
    assert [reserve(FIRST), reserve(SECOND), reserve(THIRD)] == ["id-1"] * 3
    assert idempotency.reserve(SECOND, lambda: "id-9").repeated is False


def test_an_attempt_may_be_lost_on_its_way(reserve) -> None:
    assert [reserve(FIRST), reserve(THIRD)] == ["id-1", "id-1"]


def test_a_repetition_of_nothing_is_a_request(reserve) -> None:
    assert [reserve(SECOND), reserve(THIRD)] == ["id-1", "id-1"]


def test_two_requests_keep_a_repetition_each(reserve) -> None:
    first, other = reserve(FIRST), reserve(FIRST)
    assert {reserve(SECOND), reserve(SECOND)} == {first, other}
    assert {reserve(THIRD), reserve(THIRD)} == {first, other}
    assert reserve(THIRD) == "id-3", "nobody is left whom it could belong to"


def test_a_request_without_an_answer_comes_first(reserve, idempotency: IdempotencyStore) -> None:
    lost, answered = reserve(FIRST), reserve(FIRST)
    idempotency.mark_answered(answered)
    assert reserve(SECOND) == lost


@pytest.mark.parametrize("change", [{"path": "/v1/files"}, {"digest": "other"}, {"key": "k"}])
def test_only_the_same_request_is_a_repetition(reserve, change: dict[str, str]) -> None:
    reserve(FIRST)
    assert reserve(replace(SECOND, **change)) == "id-2"


@pytest.mark.parametrize(("late", "expected"), [(-1, "id-1"), (1, "id-2")])
def test_a_lost_request_is_remembered_for_longer_than_a_client_waits(
    reserve, clock: ManualClock, late: float, expected: str
) -> None:
    reserve(FIRST)
    clock.now += UNANSWERED_SECONDS + late
    assert reserve(SECOND) == expected


@pytest.mark.parametrize(("late", "expected"), [(-1, "id-1"), (1, "id-2")])
def test_an_answered_request_is_remembered_for_as_long_as_a_client_pauses(
    reserve, idempotency: IdempotencyStore, clock: ManualClock, late: float, expected: str
) -> None:
    idempotency.mark_answered(reserve(FIRST))
    clock.now += ANSWERED_SECONDS + late
    assert reserve(SECOND) == expected


def test_a_refused_request_leaves_nothing(reserve, idempotency: IdempotencyStore) -> None:
    idempotency.forget(reserve(FIRST))
    assert reserve(SECOND) == "id-2"


def test_a_key_means_the_same_request_for_a_day(
    reserve, idempotency: IdempotencyStore, clock: ManualClock
) -> None:
    keyed = replace(FIRST, key="k")
    assert [reserve(keyed), reserve(keyed)] == ["id-1", "id-1"]
    idempotency.mark_answered("id-1")
    clock.now += 23 * 3600
    assert reserve(keyed) == "id-1"
    assert reserve(replace(keyed, key="other")) == "id-2"
    assert reserve(replace(keyed, path="/v1/batches")) == "id-3"
    with pytest.raises(InvalidRequestError, match="another body"):
        reserve(replace(keyed, digest="other"))
    clock.now += 25 * 3600
    assert reserve(replace(keyed, digest="other")) == "id-4"


def test_a_restart_forgets_nothing(reserve, database: Database) -> None:
    reserve(FIRST)
    restarted = IdempotencyStore(database, "default")
    assert restarted.reserve(SECOND, lambda: "id-9").resource_id == "id-1"
