"""How many of torch's threads a pass takes: all, unless others need the cores.

A pass is many small products, and after each its threads wait for one another. Alone on a machine
that costs nothing. Beside a training, or anything else that computes, a thread that has lost its
core holds up all the others at each of a thousand meetings, and one thread alone is several times
as fast; docs/log.md has the numbers.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# A thread that is never made to wait computes nearly all the time that passes.
_HELD_UP = 0.75
_RETRY_AFTER, _LONGEST_RETRY = 3.0, 24.0  # seconds
_ALL = torch.get_num_threads()  # before anybody changes it


class Threads:
    """Halves the threads when passes are held up, and doubles them again after a while.

    Any pass may be held up by chance, so it takes two of the last three. A number that has just
    been changed has one against it already, and each time that trying more was in vain, it takes
    twice as long until it is tried again.

    All passes are run in one thread: it is that thread whose number this is.
    """

    def __init__(self, most: int = _ALL) -> None:
        self._most = most
        self._count = most
        self._held_up: deque[bool] = deque(maxlen=3)
        self._retry_after = _RETRY_AFTER
        self._raise_at = 0.0

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Run a pass with as many threads as pay, and learn from it."""
        start, worked = time.perf_counter(), time.thread_time()
        if self._count < self._most and start > self._raise_at:
            self._change(2 * self._count)
        if torch.get_num_threads() != self._count:
            torch.set_num_threads(self._count)
        yield
        now, worked = time.perf_counter(), time.thread_time() - worked
        self._held_up.append(worked < _HELD_UP * (now - start))
        if self._count > 1 and self._held_up.count(True) > 1:
            self._change(self._count // 2)
            self._raise_at = now + self._retry_after
            self._retry_after = min(2 * self._retry_after, _LONGEST_RETRY)
        elif self._count == self._most and self._held_up.count(False) == 3:
            self._retry_after = _RETRY_AFTER

    def _change(self, count: int) -> None:
        self._count = min(count, self._most)
        self._held_up = deque([True], maxlen=3)
