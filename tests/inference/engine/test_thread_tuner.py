"""The number of threads of a pass, by a clock that tests set."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from emojitune.inference.engine import thread_tuner
from emojitune.inference.engine.thread_tuner import ThreadTuner


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.worked = 0.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.worked


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock, before = Clock(), torch.get_num_threads()
    module = SimpleNamespace(perf_counter=clock.perf_counter, thread_time=clock.thread_time)
    monkeypatch.setattr(thread_tuner, "time", module)
    yield clock
    torch.set_num_threads(before)


def run_pass(tuner: ThreadTuner, clock: Clock, *, seconds: float, worked: float) -> int:
    """The threads of a pass that takes some seconds and computes for a part of them."""
    with tuner.tuned():
        count = torch.get_num_threads()
        clock.now += seconds
        clock.worked += worked
    return count


def test_alone_a_pass_takes_all_threads(clock: Clock) -> None:
    tuner = ThreadTuner(4)
    assert [run_pass(tuner, clock, seconds=0.05, worked=0.049) for _ in range(3)] == [4, 4, 4]


def test_stalled_passes_halve_the_threads_down_to_one(clock: Clock) -> None:
    tuner = ThreadTuner(4)
    counts = [run_pass(tuner, clock, seconds=0.05, worked=0.02) for _ in range(5)]
    assert counts == [4, 4, 2, 1, 1]


def test_one_pass_of_three_may_stall_by_chance(clock: Clock) -> None:
    tuner = ThreadTuner(2)
    for worked in (0.02, 0.05, 0.05, 0.02, 0.05, 0.05):
        assert run_pass(tuner, clock, seconds=0.05, worked=worked) == 2
    for worked in (0.02, 0.05, 0.02):
        assert run_pass(tuner, clock, seconds=0.05, worked=worked) == 2
    assert run_pass(tuner, clock, seconds=0.05, worked=0.05) == 1


def test_after_a_while_more_threads_are_tried_again(clock: Clock) -> None:
    tuner = ThreadTuner(4)
    for _ in range(3):
        run_pass(tuner, clock, seconds=0.05, worked=0.02)
    assert run_pass(tuner, clock, seconds=0.05, worked=0.05) == 1
    clock.now += 6.1
    assert [run_pass(tuner, clock, seconds=0.05, worked=0.05) for _ in range(3)] == [2, 4, 4]


def test_a_failed_try_doubles_the_wait_before_the_next(clock: Clock) -> None:
    tuner, waits = ThreadTuner(2), []
    for _ in range(2):
        run_pass(tuner, clock, seconds=0.05, worked=0.02)
    for _ in range(6):
        began = clock.now
        while run_pass(tuner, clock, seconds=0.1, worked=0.1) == 1:
            pass
        waits.append(clock.now - began)
        run_pass(tuner, clock, seconds=0.1, worked=0.02)
    assert waits == pytest.approx([3, 6, 12, 24, 24, 24], rel=0.1)


def test_a_single_thread_is_never_given_up(clock: Clock) -> None:
    assert run_pass(ThreadTuner(1), clock, seconds=9.0, worked=0.0) == 1
