import pytest

from emojitune.server.edge.rate_limits import TokenBucket, format_duration


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_refilled_at_a_constant_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(60, clock)
    for _ in range(60):
        assert bucket.seconds_until(1) == 0
        bucket.take(1)
    assert bucket.seconds_until(1) == pytest.approx(1)
    clock.now += 0.75
    assert bucket.seconds_until(1) == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.seconds_until(1) == 0
    clock.now += 1000
    assert bucket.available == 60, "what is not used is not saved up"


def test_a_bucket_may_be_overdrawn_and_is_refilled() -> None:
    clock = Clock()
    bucket = TokenBucket(600, clock)
    bucket.take(1200)
    assert bucket.available == -600
    assert bucket.seconds_until(0) == pytest.approx(60)
    clock.now += 60
    assert bucket.available == pytest.approx(0)


def test_a_bucket_without_limit_never_waits() -> None:
    bucket = TokenBucket(0)
    bucket.take(10**12)
    assert bucket.seconds_until(1) == 0


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s")],
)
def test_durations_are_formatted_as_by_openai(seconds: float, written: str) -> None:
    assert format_duration(seconds) == written
