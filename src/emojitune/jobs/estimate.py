"""When a job will be done: the `estimated_finish` of the API."""

import math
import time

_EVERY = 2.0  # seconds between updates


class FinishEstimate:
    """When a job will be done, at the pace of the steps that this process sees."""

    def __init__(self, then: float = 0.0) -> None:
        """`then` is what follows the last step, in steps."""
        self._then = then
        self._first: tuple[int, float] | None = None
        self._told = 0.0

    def after(self, step: int, total: int) -> int | None:
        """The finish in unix seconds, now and then; None in between."""
        clock = time.monotonic()
        if self._first is None:
            self._first = (step, clock)
        first_step, started = self._first
        if step == first_step or clock - self._told < _EVERY:
            return None
        self._told = clock
        left = (total - step + self._then) * (clock - started) / (step - first_step)
        return math.ceil(time.time() + left)
