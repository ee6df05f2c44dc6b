"""How many of torch's threads a pass takes: all, unless others need the cores.

A pass is many small products, and after each its threads wait for one another. Alone on a machine
that costs nothing. Beside a training, or anything else that computes, a thread that has lost its
core holds up all the others at each of a thousand meetings, and one thread alone is several times
as fast; docs/log.md has the numbers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# A thread that is never made to wait computes nearly all the time that passes.
_HELD_UP = 0.75
_RETRY_AFTER = 3.0  # seconds
_ALL = torch.get_num_threads()  # before anybody changes it


class Threads:
    """Halves the threads when passes are held up, and doubles them again after a while.

    All passes are run in one thread: it is that thread whose number this is.
    """

    def __init__(self, most: int = _ALL) -> None:
        self._most = most
        self._count = most
        self._raise_at = 0.0

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """Run a pass with as many threads as pay, and learn from it."""
        start, worked = time.perf_counter(), time.thread_time()
        if self._count < self._most and start > self._raise_at:
            self._count = min(2 * self._count, self._most)
        if torch.get_num_threads() != self._count:
            torch.set_num_threads(self._count)
        yield
        now, worked = time.perf_counter(), time.thread_time() - worked
        if self._count > 1 and worked < _HELD_UP * (now - start):
            self._count //= 2
            self._raise_at = now + _RETRY_AFTER
