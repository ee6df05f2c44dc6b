"""Worker threads that projects share fairly, for work that may take long."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


class FairThreads:
    """At most `total` threads at a time, and of these at most `each` for one owner.

    Whoever waits is served in the order of arrival, but owners with fewer threads come first. A
    thread counts until it ends, also when nobody waits for its result any more: its work cannot be
    interrupted from outside, and clients that leave must not be able to pile up such threads.
    """

    def __init__(self, total: int, *, each: int) -> None:
        self._total = total
        self._each = each
        self._running: Counter[Hashable] = Counter()
        self._waiting: list[tuple[Hashable, asyncio.Future[None]]] = []
        self._unlimited = CapacityLimiter(math.inf)  # the limits are ours

    async def run(self, owner: Hashable, function: Callable[[], T]) -> T:
        """The result of `function`, called in a thread; a cancellation abandons the thread."""
        await self._acquire(owner)
        loop = asyncio.get_running_loop()

        def call_and_release() -> T:
            try:
                return function()
            finally:
                loop.call_soon_threadsafe(self._release, owner)

        return await to_thread.run_sync(
            call_and_release, limiter=self._unlimited, abandon_on_cancel=True
        )

    async def _acquire(self, owner: Hashable) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((owner, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # admitted at the same moment
                self._release(owner)
            raise

    def _admit(self) -> None:
        for owner, turn in sorted(self._waiting, key=lambda one: self._running[one[0]]):
            if turn.cancelled():
                self._waiting.remove((owner, turn))
            elif self._running.total() < self._total and self._running[owner] < self._each:
                self._waiting.remove((owner, turn))
                self._running[owner] += 1
                turn.set_result(None)

    def _release(self, owner: Hashable) -> None:
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        self._admit()
