"""Threads that are shared fairly, with threads that wait until the test releases them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from emojitune.server.threads import FairThreads


class Work:
    """Calls that run until they are released, in the order in which they started."""

    def __init__(self, threads: FairThreads) -> None:
        self.started: list[str] = []
        self._threads = threads
        self._releases: dict[str, threading.Event] = {}

    def begin(self, name: str) -> asyncio.Task[str]:
        """Run a call for the owner that the name begins with."""
        release = self._releases[name] = threading.Event()

        def call() -> str:
            self.started.append(name)
            assert release.wait(10)
            return name

        return asyncio.create_task(self._threads.run(name[0], call))

    def release(self, *names: str) -> None:
        for name in names or self._releases:
            self._releases[name].set()

    async def has_started(self, *names: str) -> None:
        while sorted(self.started) != sorted(names):
            await asyncio.sleep(0.005)


def run(scenario: Callable[[Work], Awaitable[None]], total: int, each: int) -> None:
    async def with_work() -> None:
        work = Work(FairThreads(total, each=each))
        try:
            await asyncio.wait_for(scenario(work), 10)
        finally:
            work.release()

    asyncio.run(with_work())


def test_an_owner_leaves_threads_for_others() -> None:
    async def scenario(work: Work) -> None:
        tasks = [work.begin(name) for name in ("a1", "a2", "a3", "b1")]
        await work.has_started("a1", "a2", "b1")
        work.release("a1")
        await work.has_started("a1", "a2", "b1", "a3")
        work.release()
        assert await asyncio.gather(*tasks) == ["a1", "a2", "a3", "b1"]

    run(scenario, total=4, each=2)


def test_the_owner_with_fewer_threads_comes_first() -> None:
    async def scenario(work: Work) -> None:
        for name in ("a1", "a2", "a3", "b1"):
            work.begin(name)
        await work.has_started("a1", "a2")
        work.release("a1")
        await work.has_started("a1", "a2", "b1")
        work.release("a2")
        await work.has_started("a1", "a2", "b1", "a3")

    run(scenario, total=2, each=2)


def test_an_abandoned_thread_counts_until_it_ends() -> None:
    async def scenario(work: Work) -> None:
        abandoned = work.begin("a1")
        await work.has_started("a1")
        abandoned.cancel()
        with pytest.raises(asyncio.CancelledError):
            await abandoned
        work.begin("a2")
        await asyncio.sleep(0.05)
        assert work.started == ["a1"]
        work.release("a1")
        await work.has_started("a1", "a2")

    run(scenario, total=1, each=1)


def test_a_call_that_is_cancelled_while_it_waits_never_starts() -> None:
    async def scenario(work: Work) -> None:
        work.begin("a1")
        await work.has_started("a1")
        work.begin("a2").cancel()
        work.begin("a3")
        work.release("a1")
        await work.has_started("a1", "a3")

    run(scenario, total=1, each=1)


@pytest.mark.parametrize("turns", range(5))
def test_a_call_that_is_cancelled_as_it_starts_frees_its_thread(turns: int) -> None:
    async def scenario(work: Work) -> None:
        cancelled = work.begin("a1")
        for _ in range(turns):
            await asyncio.sleep(0)
        cancelled.cancel()
        work.begin("a2")
        work.release("a1")
        while "a2" not in work.started:
            await asyncio.sleep(0.005)

    run(scenario, total=1, each=1)


def test_an_error_is_raised_and_frees_its_thread() -> None:
    async def scenario(work: Work) -> None:
        def fail() -> None:
            raise ValueError("no")

        for _ in range(3):
            with pytest.raises(ValueError, match="no"):
                await work._threads.run("a", fail)

    run(scenario, total=1, each=1)
