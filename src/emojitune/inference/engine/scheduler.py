"""The scheduler: ids in, log-probabilities out. One cache, one batch, any number of requests.

Knows no text, no labels and no HTTP. A request is a generator that yields the `ForwardRequest`s it
needs next and is sent their results; all requests advance in step, one forward pass after the other
(continuous batching, as in Orca: a request joins and leaves between any two passes).
"""

import logging
import threading
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from emojitune.inference.engine.batch import Adapter, ModelRunner, Slots
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, KVCache, Prompt
from emojitune.inference.engine.thread_tuner import ThreadTuner

_log = logging.getLogger(__name__)

T = TypeVar("T")
Decoder = Generator[list[ForwardRequest], list[ForwardResult], T]
"""Yields lists of forward requests, is sent as many results, returns a value when it is done."""

Start = Callable[[Prompt], Decoder[None]]


class Scheduler(Generic[Adapter]):
    """Runs requests on one base model, each with an adapter of its own or none.

    Args:
        executor: Runs the passes. One thread, shared by the schedulers of a process: each thread
            that uses torch gets OpenMP threads of its own, and where there are more of them than
            cores they stop waiting actively, which makes a pass take twice as long.
        capacity: Tokens that the cache may hold, those of all running requests together.
    """

    def __init__(
        self, runner: ModelRunner[Adapter], executor: Executor, *, capacity: int = 32_768
    ) -> None:
        self.capacity = capacity
        self._cache = KVCache(runner)
        self._executor = executor
        self._threads = ThreadTuner()
        self._running: list[_Request[Adapter]] = []
        self._waiting: list[_Request[Adapter]] = []
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
        adapter: Adapter | None = None,
        owner: Hashable = None,
    ) -> None:
        """Queue a request; it starts, in the executor's thread, when the cache has room for it.

        Args:
            prompt: Its ids; all but the last may already be in the cache when it starts.
            start: Makes the request's decoder from the prompt and its cached prefix.
            reserve: The most tokens that the request will hold, prompt included.
            on_error: Called when the request, or the model under it, raises.
            cancelled: Checked before every pass; a cancelled request is dropped.
            adapter: The update that the request is computed with, beside the base.
            owner: Whose request it is: its cached prompt serves no other owner.
        """
        request = _Request(tuple(prompt), start, reserve, on_error, cancelled, adapter, owner)
        with self._lock:
            self._waiting.append(request)
            if not self._scheduled:
                self._scheduled = True
                self._executor.submit(self._step)

    @property
    def busy(self) -> bool:
        """Whether any request has not ended."""
        return self._scheduled

    def _step(self) -> None:
        """One step of every running request; queues itself again until there are none."""
        self._admit()
        self._running = [request for request in self._running if self._start_or_retire(request)]
        if self._running:
            self._forward(self._running)
        else:
            self._cache.shrink()
        with self._lock:
            self._scheduled = bool(self._running or self._waiting)
            if self._scheduled:
                self._executor.submit(self._step)

    def _admit(self) -> None:
        """Move waiting requests, in order, to the running ones while the cache has room; one runs
        in any case."""
        with self._lock:
            used = sum(request.reserve for request in self._running)
            while self._waiting:
                used += self._waiting[0].reserve
                if self._running and used > self.capacity:
                    return
                self._running.append(self._waiting.pop(0))
                # Rows of one adapter are adjacent in a pass.
                self._running.sort(key=lambda request: id(request.adapter))

    def _start_or_retire(self, request: "_Request[Adapter]") -> bool:
        """Start a new request; release the slots of one that is done or cancelled: False."""
        if request.cancelled():
            request.pending = []
        elif request.decoder is None:
            prompt = self._cache.match_prefix(request.prompt, request.adapter, request.owner)
            request.decoder = request.start(prompt)
            self._resume(request, None)
        if not request.pending:
            self._cache.release(request.held)
        return bool(request.pending)

    def _forward(self, running: list["_Request[Adapter]"]) -> None:
        try:
            with self._threads.tuned():
                results = self._cache.forward(
                    [request.pending for request in running],
                    [request.adapter for request in running],
                )
        except Exception as error:  # out of memory, say: every request of this pass fails
            for request in running:
                request.fail(error)
            return
        for request, request_results in zip(running, results, strict=True):
            if not request.inserted:
                request.inserted = True
                self._cache.insert(
                    request.prompt, request.adapter, request_results[0].path, request.owner
                )
            for pending, result in zip(request.pending, request_results, strict=True):
                slots = result.path.slots[len(pending.parent) :]
                if pending.keep:
                    request.held.append(slots)
                else:
                    self._cache.release([slots])
            self._resume(request, request_results)

    def _resume(self, request: "_Request[Adapter]", results: list[ForwardResult] | None) -> None:
        assert request.decoder is not None
        try:
            request.pending = (
                next(request.decoder) if results is None else request.decoder.send(results)
            )
        except StopIteration:
            request.pending = []
        except Exception as error:  # a bug in one request must not end the others
            request.fail(error)


class _Request(Generic[Adapter]):
    """A queued or running request.

    Attributes:
        decoder: The generator that makes its replies; None until it starts.
        pending: The forward requests of its next pass; empty when it is done.
        held: The slots that it took and has not given back.
        inserted: Whether its prompt has been offered to the prefix cache.
    """

    def __init__(
        self,
        prompt: tuple[int, ...],
        start: Start,
        reserve: int,
        on_error: Callable[[Exception], None],
        cancelled: Callable[[], bool],
        adapter: Adapter | None,
        owner: Hashable,
    ) -> None:
        self.owner = owner
        self.prompt = prompt
        self.start = start
        self.reserve = reserve
        self.cancelled = cancelled
        self.adapter = adapter
        self.decoder: Decoder[None] | None = None
        self.pending: list[ForwardRequest] = []
        self.held: list[Slots] = []
        self.inserted = False
        self._on_error = on_error

    def fail(self, error: Exception) -> None:
        _log.error("A chat request failed in the engine.", exc_info=error)
        self.pending = []
        self._on_error(error)
