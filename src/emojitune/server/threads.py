"""Worker threads that projects share fairly, for work that may take long."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

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
        self._calls: set[asyncio.Task[Any]] = set()  # which nothing else keeps alive
        self._unlimited = CapacityLimiter(math.inf)  # the limits are ours

    async def run(self, owner: Hashable, function: Callable[[], T]) -> T:
        """The result of `function`, called in a thread; a cancellation abandons the thread."""
        await self._acquire(owner)
        # A task of its own, because a cancelled caller must neither keep the thread from being
        # counted nor from being released.
        call = asyncio.create_task(
            to_thread.run_sync(function, limiter=self._unlimited, abandon_on_cancel=True)
        )
        self._calls.add(call)
        call.add_done_callback(partial(self._end, owner))
        return await asyncio.shield(call)

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

    def _end(self, owner: Hashable, call: "asyncio.Task[Any]") -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # of an abandoned call, it would be reported as unhandled
        self._release(owner)

    def _release(self, owner: Hashable) -> None:
        self._running[owner] -= 1
        if not self._running[owner]:
            del self._running[owner]
        self._admit()
