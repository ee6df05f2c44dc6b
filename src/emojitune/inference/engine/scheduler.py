"""The scheduler: ids in, log-probabilities out. One cache, one batch, any number of requests.

Knows no text, no labels and no HTTP. A request is a generator that yields the `ForwardRequest`s it
needs next and is sent their results; all requests advance in step, one forward pass after the other
(continuous batching, as in Orca: a request joins and leaves between any two passes).

No request keeps the others waiting: a pass takes few tokens, and what needs more of them is
computed in slices, between the passes:

    pass of all ─ layers 1, 2 of a long prompt ─ pass of all ─ layers 3, 4 of the prompt ─ ...

Owners share tokens, time and cache fairly, however many requests each of them has.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Any, Generic, TypeVar

from emojitune.inference.engine.batch import Adapter, ModelRunner, Slots
from emojitune.inference.engine.chunks import forward_in_chunks
from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult, KVCache, Prompt
from emojitune.inference.engine.slices import SlicedComputation, Slices, take_turns
from emojitune.inference.engine.thread_tuner import ThreadTuner
from emojitune.models.torch_environment import return_free_memory

_log = logging.getLogger(__name__)

T = TypeVar("T")
Decoder = Generator[list[ForwardRequest], list[ForwardResult], T]
"""Yields lists of forward requests, is sent as many results, returns a value when it is done.

It also yields empty lists, wherever others may come in between.
"""

Start = Callable[[Prompt], Decoder[None]]

# An owner may hold this many times what the others have left free in the cache: the dynamic
# threshold of Choudhury and Hahne (1998), which leaves room for whoever comes next.
_SHARE_OF_FREE = 3
_MAX_OVERTAKEN = 64
_CLEANUP_AFTER = 30.0  # seconds without requests; until then the next one may need the same memory

_MIN_SHARE = 32  # tokens of a pass, for an owner beside others
_MIN_SHARE_OF_SLICES = 0.25  # of the time for slices, for an owner who had all of the pass

# Of a pass's time, for what its requests do with their results (they sample, mostly) at once. The
# rest is done in slices: 128 replies of one request can take much longer than their pass.
_SHARE_OF_PASS = 0.25


class Scheduler(Generic[Adapter]):
    """Runs requests on one base model, each with an adapter of its own or none.

    Args:
        executor: Runs the passes. One thread, shared by the schedulers of a process: each thread
            that uses torch gets OpenMP threads of its own, and where there are more of them than
            cores they stop waiting actively, which makes a pass take twice as long.
        capacity: Tokens that the cache may hold, those of all running requests together.
    """

    def __init__(self, runner: ModelRunner[Adapter], executor: Executor, *, capacity: int) -> None:
        self._capacity = capacity
        self._runner = runner
        self._cache = KVCache(runner)
        self._chunk_tokens = runner.chunk_tokens
        self._executor = executor
        self._threads = ThreadTuner()
        self._running: list[_Request[Adapter]] = []
        self._computing: list[SlicedComputation[Any]] = []
        self._waiting: list[_Request[Adapter]] = []
        self._submitted: list[SlicedComputation[Any]] = []
        self._lock = threading.Lock()
        self._scheduled = False
        self._idle_since = 0.0
        self._cleanup_queued = False

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
            cancelled: Checked before every pass and slice; a cancelled request is dropped.
            adapter: The update that the request is computed with, beside the base.
            owner: Whose request it is: its cached prompt serves no other owner.
        """
        request = _Request(tuple(prompt), start, reserve, on_error, cancelled, adapter, owner)
        with self._lock:
            self._waiting.append(request)
            self._schedule()

    def compute(
        self, slices: Slices[T], *, cancelled: Callable[[], bool], owner: Hashable = None
    ) -> "Future[T]":
        """Queue another computation on this base model, outside of the cache.

        Args:
            cancelled: Checked before every slice; the future of a cancelled computation is
                cancelled, too.
        """
        future: Future[T] = Future()
        computation = SlicedComputation(
            slices,
            owner,
            on_result=future.set_result,
            on_error=future.set_exception,
            on_cancel=future.cancel,
            cancelled=cancelled,
        )
        with self._lock:
            self._submitted.append(computation)
            self._schedule()
        return future

    @property
    def busy(self) -> bool:
        """Whether any request has not ended."""
        return self._scheduled

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._executor.submit(self._step)

    def _step(self) -> None:
        """Compute some more; queues itself again until nothing is left."""
        try:
            self._pass_and_slices()
        except Exception as error:  # a bug here must not end the engine for all later requests
            self._fail_all(error)
        if not self._running and not self._computing:
            self._idle_since = time.monotonic()
            if not self._cleanup_queued:
                self._cleanup_queued = True
                self._run_later(_CLEANUP_AFTER, self._clean_up)
        with self._lock:
            self._scheduled = False
            if self._running or self._computing or self._waiting or self._submitted:
                self._schedule()

    def _pass_and_slices(self) -> None:
        """A pass, and slices for as long as it took."""
        self._admit()
        self._running = [request for request in self._running if self._start_or_retire(request)]
        self._computing = [one for one in self._computing if not one.close_if_cancelled()]
        batch = self._next_batch()
        tokens = Counter({request.owner: 0 for request in self._running})
        for request in batch:
            tokens[request.owner] += request.tokens
        started = time.perf_counter()
        if batch:
            self._forward(batch)
        self._compute_slices(time.perf_counter() - started, tokens)

    def _fail_all(self, error: Exception) -> None:
        """End everything that runs; what waits begins anew."""
        computing, self._computing = self._computing, []
        in_passes = [request for request in self._running if not request.in_slices]
        self._running = []
        for computation in computing:
            computation.fail(error)
        for request in in_passes:
            request.fail(error)
        self._cache = KVCache(self._runner)

    def _clean_up(self) -> None:
        """Give the memory back that requests have needed, a while after the last of them."""
        now = time.monotonic()
        wait = self._idle_since + _CLEANUP_AFTER - now
        if wait > 0:
            self._run_later(wait, self._clean_up)
            return
        self._cleanup_queued = False
        self._cache.forget(unused_since=now - _CLEANUP_AFTER)
        if not self._running:
            self._cache.compact()
            return_free_memory()

    def _run_later(self, seconds: float, function: Callable[[], None]) -> None:
        def run() -> None:
            with suppress(RuntimeError):  # the executor has been shut down
                self._executor.submit(function)

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        timer.start()

    def _admit(self) -> None:
        """Move waiting requests to the running ones while the cache has room for them."""
        with self._lock:
            self._computing += self._submitted
            self._submitted = []
            while (request := self._next_to_admit()) is not None:
                self._waiting.remove(request)
                self._running.append(request)

    def _next_to_admit(self) -> "_Request[Adapter] | None":
        """The waiting request that runs next; one runs in any case.

        Each owner's requests run in their order, and those of the owner who holds least come first.
        Where one does not fit yet, those after it may overtake it, but not for ever.
        """
        held = Counter({request.owner: 0 for request in self._waiting})
        for request in self._running:
            held[request.owner] += request.reserve
        free = self._capacity - held.total()
        too_large: list[_Request[Adapter]] = []
        for head in sorted(_first_of_each_owner(self._waiting), key=lambda one: held[one.owner]):
            if self._running and head.reserve > free:
                if head.overtaken == _MAX_OVERTAKEN:
                    return None
                too_large.append(head)
            elif not self._running or held[head.owner] <= _SHARE_OF_FREE * free:
                for other in too_large:
                    other.overtaken += 1
                return head
        return None

    def _start_or_retire(self, request: "_Request[Adapter]") -> bool:
        """Start a new request; release the slots of one that is done or cancelled: False."""
        if request.cancelled():
            request.pending = []
            request.in_slices = False
        elif request.decoder is None:
            prompt = self._cache.match_prefix(request.prompt, request.adapter, request.owner)
            request.held.append(self._cache.hold(prompt.path))
            request.decoder = request.start(prompt)
            self._resume(request, None, until=0.0)
        if not (request.pending or request.in_slices):
            self._cache.release(request.held)
        return bool(request.pending) or request.in_slices

    def _next_batch(self) -> list["_Request[Adapter]"]:
        """The requests of the next pass; those that need many tokens are computed in slices.

        Owners take turns; where not all fit, those left out come first in the pass after. Where
        there are several owners, a pass has few tokens of each: all others wait for them.
        """
        share = self._chunk_tokens
        if len({request.owner for request in self._running}) > 1:
            share = max(share // 8, _MIN_SHARE)
        largest = min(share, self._chunk_tokens // 2)
        for request in self._running:
            if not request.in_slices and request.tokens > largest:
                slices = forward_in_chunks(
                    self._cache, request.pending, request.adapter, self._chunk_tokens
                )
                self._compute_in_slices(request, slices, self._take_results)
        batch: list[_Request[Adapter]] = []
        tokens: Counter[Hashable] = Counter()
        for request in take_turns(one for one in self._running if not one.in_slices):
            tokens[request.owner] += request.tokens
            if batch and tokens.total() > self._chunk_tokens:
                break
            if tokens[request.owner] <= share:
                batch.append(request)
        taken = set(batch)
        self._running.sort(key=lambda request: request in taken)
        # Rows of one adapter are adjacent in a pass.
        return sorted(batch, key=lambda request: id(request.adapter))

    def _forward(self, batch: Sequence["_Request[Adapter]"]) -> None:
        started = time.perf_counter()
        try:
            with self._threads.tuned():
                results = self._cache.forward(
                    [request.pending for request in batch],
                    [request.adapter for request in batch],
                )
        except Exception as error:  # out of memory, say: every request of this pass fails
            for request in batch:
                request.fail(error)
            return
        results_of = dict(zip(batch, results, strict=True))
        now = time.perf_counter()
        until = now + _SHARE_OF_PASS * (now - started)
        for request in take_turns(batch):
            self._take_results(request, results_of[request], until)

    def _compute_in_slices(
        self,
        request: "_Request[Adapter]",
        slices: Slices[T],
        on_result: Callable[["_Request[Adapter]", T], None],
    ) -> None:
        def end(result: T) -> None:
            request.in_slices = False
            on_result(request, result)

        request.in_slices = True
        self._computing.append(
            SlicedComputation(
                slices,
                request.owner,
                on_result=end,
                on_error=request.fail,
                cancelled=request.cancelled,
            )
        )

    def _compute_slices(self, seconds: float, tokens: Mapping[Hashable, int]) -> None:
        """Compute slices for as long as the pass took, at least one.

        Time is shared by owners, and the part of the pass that an owner's tokens had is its time,
        too, where there are others.

        Args:
            seconds: The time of the pass; 0 if there was none.
            tokens: Those of each owner in the pass.
        """
        spent = dict.fromkeys(tokens, 0.0)
        if len(tokens) > 1 and any(tokens.values()):
            total = sum(tokens.values())
            spent = {
                owner: seconds * min(count / total, 1 - _MIN_SHARE_OF_SLICES)
                for owner, count in tokens.items()
            }
        now = time.perf_counter()
        until = now + seconds
        while self._computing:
            computation = min(self._computing, key=lambda one: spent.get(one.owner, 0.0))
            owner = computation.owner
            if spent.get(owner, 0.0) > seconds:
                return
            with self._threads.tuned():
                unfinished = computation.advance()
            if not unfinished:
                self._computing.remove(computation)
            self._computing.sort(key=lambda other: other.owner == owner)
            before, now = now, time.perf_counter()
            spent[owner] = spent.get(owner, 0.0) + now - before
            if now >= until:
                return

    def _take_results(
        self, request: "_Request[Adapter]", results: list[ForwardResult], until: float = 0.0
    ) -> None:
        if not request.inserted:
            request.inserted = True
            self._cache.insert(request.prompt, request.adapter, results[0].path, request.owner)
        for pending, result in zip(request.pending, results, strict=True):
            slots = result.path.slots[len(pending.parent) :]
            if pending.keep:
                request.held.append(slots)
            else:
                self._cache.release([slots])
        self._resume(request, results, until)

    def _resume(
        self, request: "_Request[Adapter]", results: list[ForwardResult] | None, until: float
    ) -> None:
        """Let a request's decoder go on: until a time, and then in slices."""
        slices = request.resume(results)
        with suppress(StopIteration):
            next(slices)
            while time.perf_counter() < until:
                next(slices)
            self._compute_in_slices(request, slices, lambda request, _: None)


class _Request(Generic[Adapter]):
    """A queued or running request.

    Attributes:
        decoder: The generator that makes its replies; None until it starts.
        pending: The forward requests of its next pass; empty when it is done.
        held: The slots that it took and has not given back.
        inserted: Whether its prompt has been offered to the prefix cache.
        overtaken: How many requests that came later have started before it.
        in_slices: Whether its pending requests, or what its decoder does with their results, are
            computed in slices.
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
        self.overtaken = 0
        self.in_slices = False
        self._on_error = on_error

    @property
    def tokens(self) -> int:
        """Tokens of its next pass."""
        return sum(len(request.ids) for request in self.pending)

    def resume(self, results: list[ForwardResult] | None) -> Slices[None]:
        """Let its decoder go on to the forward requests of its next pass."""
        assert self.decoder is not None
        self.pending = []
        try:
            self.pending = next(self.decoder) if results is None else self.decoder.send(results)
            while not self.pending:
                yield
                self.pending = next(self.decoder)
        except StopIteration:
            pass
        except Exception as error:  # a bug in one request must not end the others
            self.fail(error)

    def fail(self, error: Exception) -> None:
        _log.error("A chat request failed in the engine.", exc_info=error)
        self.pending = []
        self.overtaken = 0
        self.in_slices = False
        self._on_error(error)


def _first_of_each_owner(waiting: Sequence[_Request[Adapter]]) -> list[_Request[Adapter]]:
    first: dict[Hashable, _Request[Adapter]] = {}
    for request in waiting:
        first.setdefault(request.owner, request)
    return list(first.values())
