"""The number of torch threads of a forward pass: all, unless other processes need the cores.

A pass is many small products, and after each its threads wait for one another. Alone on a machine
that costs nothing. Beside a training, or any other computation, a thread that has lost its core
stalls all the others at each of a thousand barriers, and a single thread is several times as fast;
docs/log has the numbers.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Share of the wall-clock time below which a pass was stalled: a thread that never waits computes
# nearly all of it.
_STALLED_BELOW = 0.75
_RETRY_AFTER, _MAX_RETRY_AFTER = 3.0, 24.0  # seconds
_ALL = torch.get_num_threads()  # before any change


class ThreadTuner:
    """Halves the threads when passes stall, and doubles them again after a while.

    Any pass may stall by chance, so it takes two of the last three. A number that has just been
    changed starts with one stalled pass on record, and each time that more threads did not pay, the
    wait before the next try doubles.

    All passes run in one thread, and torch counts threads for each: this is the count of that one.
    """

    def __init__(self, limit: int = _ALL) -> None:
        self._limit = limit
        self._count = limit
        self._stalled: deque[bool] = deque(maxlen=3)
        self._retry_after = _RETRY_AFTER
        self._raise_at = 0.0

    @contextmanager
    def tuned(self) -> Iterator[None]:
        """Run a pass with as many threads as pay, and learn from its time."""
        start, worked = time.perf_counter(), time.thread_time()
        if self._count < self._limit and start > self._raise_at:
            self._change(2 * self._count)
        if torch.get_num_threads() != self._count:
            torch.set_num_threads(self._count)
        yield
        now, worked = time.perf_counter(), time.thread_time() - worked
        self._stalled.append(worked < _STALLED_BELOW * (now - start))
        if self._count > 1 and self._stalled.count(True) > 1:
            self._change(self._count // 2)
            self._raise_at = now + self._retry_after
            self._retry_after = min(2 * self._retry_after, _MAX_RETRY_AFTER)
        elif self._count == self._limit and self._stalled.count(False) == 3:
            self._retry_after = _RETRY_AFTER

    def _change(self, count: int) -> None:
        self._count = min(count, self._limit)
        self._stalled = deque([True], maxlen=3)
