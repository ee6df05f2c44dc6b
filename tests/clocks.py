"""Clocks for the store, that a test moves on."""

import time


class SetClock:
    """Stands still at `now`."""

    def __init__(self, now: float = 1_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class FastClock:
    """Runs, so many seconds `ahead` of the real one."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead
