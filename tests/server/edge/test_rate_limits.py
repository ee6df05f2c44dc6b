import pytest

from emojitune.server.edge.rate_limits import TokenBucket, format_duration


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_was_taken_comes_back_at_an_even_pace() -> None:
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


def test_it_may_be_overdrawn_and_is_paid_back() -> None:
    clock = Clock()
    bucket = TokenBucket(600, clock)
    bucket.take(1200)
    assert bucket.available == -600
    assert bucket.seconds_until(0) == pytest.approx(60)
    clock.now += 60
    assert bucket.available == pytest.approx(0)


def test_no_limit_is_never_waited_for() -> None:
    bucket = TokenBucket(0)
    bucket.take(10**12)
    assert bucket.seconds_until(1) == 0


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (1.5, "1.5s"), (360, "6m0s")],
)
def test_times_are_written_as_openais(seconds: float, written: str) -> None:
    assert format_duration(seconds) == written
