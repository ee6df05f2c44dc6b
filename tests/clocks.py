"""Clocks for the store that a test controls."""

import time


class ManualClock:
    """A clock that shows `now` until a test sets another time."""

    def __init__(self, now: float = 1_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class OffsetClock:
    """The real time plus an offset in seconds."""

    offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset
