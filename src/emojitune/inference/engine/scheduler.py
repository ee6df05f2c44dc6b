"""Engine: ids in, log-probabilities out. One cache, one batch, any number of requests.

Knows no text, no labels and no HTTP. A request is a generator that yields the `Growth`s it wants
and is sent what came of them; all requests advance in step, one forward pass after the other.
"""

import logging
import threading
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Executor

from emojitune.inference.engine.batch import ForwardPass, Slots
from emojitune.inference.engine.kv_cache import Forest, Grown, Growth, Prompt
from emojitune.inference.engine.thread_tuner import Threads
from emojitune.models.packed_llama import LlamaAdapter

_log = logging.getLogger(__name__)

Request = Generator[list[Growth], list[Grown], None]
"""Yields a list of growths, is sent as many results, returns when it is done."""

Start = Callable[[Prompt], Request]


class Engine:
    """Runs requests on one base model, each with an adapter of its own or none.

    Args:
        executor: Runs the passes. One thread, shared by all engines of a process: each thread that
            uses torch gets OpenMP threads of its own, and where there are more of them than cores
            they stop to wait actively, which makes a pass take twice as long.
        capacity: Tokens that the cache may hold, those of all running requests together.
    """

    def __init__(self, forward: ForwardPass, executor: Executor, *, capacity: int = 32_768) -> None:
        self.capacity = capacity
        self._forest = Forest(forward)
        self._executor = executor
        self._threads = Threads()
        self._active: list[_Running] = []
        self._waiting: list[_Running] = []
        self._lock = threading.Lock()
        self._scheduled = False

    def submit(
        self,
        prompt: Sequence[int],
        start: Start,
        *,
        reserve: int,
        on_error: Callable[[Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
        adapter: LlamaAdapter | None = None,
        owner: Hashable = None,
    ) -> None:
        """Queue a request; it starts, in the executor's thread, when the cache has room for it.

        Args:
            prompt: Its ids; all but the last may already be in the cache when it starts.
            start: Makes the request, given what the cache holds of the prompt.
            reserve: Tokens that the request will hold at most, prompt included.
            on_error: Told when the request, or the model under it, raises.
            cancelled: Asked before every pass; a cancelled request is dropped.
            adapter: What the request is computed with, beside the base.
            owner: Whose it is: what is remembered of its prompt serves no other.
        """
        request = _Running(tuple(prompt), start, reserve, on_error, cancelled, adapter, owner)
        with self._lock:
            self._waiting.append(request)
            if not self._scheduled:
                self._scheduled = True
                self._executor.submit(self._pass)

    @property
    def busy(self) -> bool:
        """Whether there are requests that have not ended."""
        return self._scheduled

    def _pass(self) -> None:
        """One step of every running request; comes back until there are none."""
        self._admit()
        self._active = [request for request in self._active if self._keep(request)]
        if self._active:
            self._advance(self._active)
        else:
            self._forest.shrink()
        with self._lock:
            self._scheduled = bool(self._active or self._waiting)
            if self._scheduled:
                self._executor.submit(self._pass)

    def _admit(self) -> None:
        """Take waiting requests, in order, as far as the cache has room; one always."""
        with self._lock:
            used = sum(request.reserve for request in self._active)
            while self._waiting:
                used += self._waiting[0].reserve
                if self._active and used > self.capacity:
                    return
                self._active.append(self._waiting.pop(0))
                # Rows of one adapter lie together in a pass.
                self._active.sort(key=lambda request: id(request.adapter))

    def _keep(self, request: "_Running") -> bool:
        """Start a new request; drop one that is done or cancelled, with all its nodes."""
        if request.cancelled():
            request.wants = []
        elif request.generator is None:
            found = self._forest.longest_known(request.prompt, request.adapter, request.owner)
            request.generator = request.start(found)
            self._step(request, None)
        if not request.wants:
            self._forest.release(request.held)
        return bool(request.wants)

    def _advance(self, active: list["_Running"]) -> None:
        try:
            with self._threads.chosen():
                results = self._forest.grow(
                    [request.wants for request in active], [request.adapter for request in active]
                )
        except Exception as error:  # out of memory, say: all of this pass are told, none hangs
            for request in active:
                request.fail(error)
            return
        for request, mine in zip(active, results, strict=True):
            if not request.remembered:
                request.remembered = True
                self._forest.remember(request.prompt, request.adapter, mine[0].path, request.owner)
            for growth, grown in zip(request.wants, mine, strict=True):
                own = grown.path.slots[len(growth.parent) :]
                if growth.keep:
                    request.held.append(own)
                else:
                    self._forest.release([own])
            self._step(request, mine)

    def _step(self, request: "_Running", results: list[Grown] | None) -> None:
        assert request.generator is not None
        try:
            request.wants = (
                next(request.generator) if results is None else request.generator.send(results)
            )
        except StopIteration:
            request.wants = []
        except Exception as error:  # a bug in one request must not end the others
            request.fail(error)


class _Running:
    """A request on its way. `held` are the nodes that it made, `wants` what it asked for last."""

    def __init__(
        self,
        prompt: tuple[int, ...],
        start: Start,
        reserve: int,
        on_error: Callable[[Exception], None],
        cancelled: Callable[[], bool],
        adapter: LlamaAdapter | None,
        owner: Hashable,
    ) -> None:
        self.owner = owner
        self.prompt = prompt
        self.start = start
        self.reserve = reserve
        self.cancelled = cancelled
        self.adapter = adapter
        self.generator: Request | None = None
        self.wants: list[Growth] = []
        self.held: list[Slots] = []
        self.remembered = False
        self._on_error = on_error

    def fail(self, error: Exception) -> None:
        _log.error("A chat request failed in the engine.", exc_info=error)
        self.wants = []
        self._on_error(error)
