"""Engine: ids in, log-probabilities out. One cache, one batch, any number of requests.

Every token in the cache is a node of a forest: it sees the path from its root, and nothing else.
A request grows its own paths, so several replies to one prompt, the branches of a search and
unrelated requests are all just new nodes of the next forward pass. Paths that begin with the same
tokens, and are computed with the same adapter or none, share their nodes: that is the prefix cache.

Knows no text, no labels and no HTTP. A request is a generator that yields the `Growth`s it wants
and is sent what came of them; all requests advance in step, one forward pass after the other.
"""

import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from emojitune.chat.batch import Batch, ForwardPass, Slots, View
from emojitune.models.packed_llama import LlamaAdapter

_log = logging.getLogger(__name__)

_EMPTY: Slots = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Path:
    """Tokens in the cache, from the root on: their slots. Frozen; growing it makes another."""

    slots: Slots

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Growth:
    """`ids` to put behind `parent`, and what is wanted to know then.

    Attributes:
        wanted: For each of the last ids, as many as there are entries, the tokens of which the
            log-probability of coming next is wanted; None wants all tokens after the last id.
        keep: False when nothing will grow from the path: its nodes are free after the pass.
    """

    parent: Path
    ids: Sequence[int]
    wanted: Sequence[Sequence[int]] | None = None
    keep: bool = True

    @property
    def rows(self) -> int:
        """How many of the last ids something is wanted after."""
        return 1 if self.wanted is None else len(self.wanted)


@dataclass(frozen=True, slots=True)
class Grown:
    """The longer path, and for each row that was wanted its log-probabilities, in float32."""

    path: Path
    rows: list[Tensor]


Request = Generator[list[Growth], list[Grown], None]
"""Yields a list of growths, is sent as many results, returns when it is done."""

Start = Callable[["Prompt"], Request]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as far as the cache knows it: `path` covers its first `cached` tokens."""

    path: Path
    cached: int


class Engine:
    """Runs requests on one base model, each with an adapter of its own or none.

    Args:
        executor: Runs the passes. One thread, shared by all engines of a process: each thread that
            uses torch gets OpenMP threads of its own, and where there are more of them than cores
            they stop to wait actively, which makes a pass take twice as long.
        capacity: Tokens that the cache may hold, those of all running requests together.
    """

    def __init__(self, forward: ForwardPass, executor: Executor, *, capacity: int = 32_768) -> None:
        self._forest = _Forest(forward)
        self._executor = executor
        self._capacity = capacity
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
    ) -> None:
        """Queue a request; it starts, in the executor's thread, when the cache has room for it.

        Args:
            prompt: Its ids; all but the last may already be in the cache when it starts.
            start: Makes the request, given what the cache holds of the prompt.
            reserve: Tokens that the request will hold at most, prompt included.
            on_error: Told when the request, or the model under it, raises.
            cancelled: Asked before every pass; a cancelled request is dropped.
            adapter: What the request is computed with, beside the base.
        """
        request = _Running(tuple(prompt), start, reserve, on_error, cancelled, adapter)
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
                if self._active and used > self._capacity:
                    return
                self._active.append(self._waiting.pop(0))
                # Rows of one adapter lie together in a pass.
                self._active.sort(key=lambda request: id(request.adapter))

    def _keep(self, request: "_Running") -> bool:
        """Start a new request; drop one that is done or cancelled, with all its nodes."""
        if request.cancelled():
            request.wants = []
        elif request.generator is None:
            found = self._forest.longest_known(request.prompt, request.adapter)
            request.generator = request.start(found)
            self._step(request, None)
        if not request.wants:
            self._forest.release(request.held)
        return bool(request.wants)

    def _advance(self, active: list["_Running"]) -> None:
        try:
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
                self._forest.remember(request.prompt, request.adapter, mine[0].path)
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
    ) -> None:
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


class _Forest:
    """The cache: slots for tokens, who holds them, and the forward pass that fills them."""

    def __init__(self, forward: ForwardPass, *, remembered: int = 8192) -> None:
        self._forward_pass = forward
        self._holders = np.zeros(0, dtype=np.int64)
        self._known: OrderedDict[_Prefix, Path] = OrderedDict()
        self._limit = remembered  # tokens, those of all remembered prompts together

    def longest_known(self, prompt: Sequence[int], adapter: LlamaAdapter | None) -> Prompt:
        """The longest cached beginning of `prompt`, its last token left out."""
        best, path, source = 0, Path(_EMPTY), None
        for prefix, known in self._known.items():
            if prefix.adapter != _reference(adapter):
                continue
            shared = _shared(prefix.ids, prompt[:-1])
            if shared > best:
                best, path, source = shared, known, prefix
        if source is not None:
            self._known.move_to_end(source)
        return Prompt(Path(path.slots[:best]), best)

    def remember(self, prompt: tuple[int, ...], adapter: LlamaAdapter | None, path: Path) -> None:
        """Keep a prompt's nodes for later requests that begin alike."""
        prefix = _Prefix(_reference(adapter), prompt)
        if prefix in self._known or len(prompt) > self._limit:
            return
        kept = Path(path.slots[: len(prompt)])
        self._holders[kept.slots] += 1
        self._known[prefix] = kept
        while sum(len(known.ids) for known in self._known) > self._limit:
            _, oldest = self._known.popitem(last=False)
            self.release([oldest.slots])

    def release(self, held: Sequence[Slots]) -> None:
        """Give nodes back; a slot is free when nobody holds it."""
        for slots in held:
            self._holders[slots] -= 1

    @torch.inference_mode()
    def grow(
        self, wants: Sequence[Sequence[Growth]], adapters: Sequence[LlamaAdapter | None]
    ) -> list[list[Grown]]:
        """One forward pass over the new tokens of all growths, those of a request together.

        Args:
            adapters: What each request is computed with; requests of one lie together.
        """
        growths = [growth for request in wants for growth in request]
        own = self._take([len(growth.ids) for growth in growths])
        paths = [
            Path(np.concatenate([growth.parent.slots, slots]))
            for growth, slots in zip(growths, own, strict=True)
        ]
        try:
            logits = self._forward(wants, adapters, paths)
        except BaseException:
            self.release(own)
            raise
        rows = _log_probabilities(logits, growths)
        grown = iter(
            [
                Grown(path, [next(rows) for _ in range(growth.rows)])
                for path, growth in zip(paths, growths, strict=True)
            ]
        )
        return [[next(grown) for _ in request] for request in wants]

    def _forward(
        self,
        wants: Sequence[Sequence[Growth]],
        adapters: Sequence[LlamaAdapter | None],
        paths: Sequence[Path],
    ) -> Tensor:
        """Logits after the ids that something is wanted after, (rows, V)."""
        growths = [growth for request in wants for growth in request]
        new = [len(growth.ids) for growth in growths]
        stops = np.cumsum(new)
        rows = [
            np.arange(stop - growth.rows, stop) for growth, stop in zip(growths, stops, strict=True)
        ]
        pairs = iter(zip(paths, new, strict=True))
        batch = Batch(
            ids=np.array([token for growth in growths for token in growth.ids]),
            positions=np.concatenate(
                [np.arange(len(p) - n, len(p)) for p, n in zip(paths, new, strict=True)]
            ),
            slots=np.concatenate([path.slots[-n:] for path, n in zip(paths, new, strict=True)]),
            views=[_view([next(pairs) for _ in request]) for request in wants],
            wanted=np.concatenate(rows),
            adapters=_adapted(wants, adapters),
        )
        return self._forward_pass.logits(batch)

    def _take(self, counts: Sequence[int]) -> list[Slots]:
        """Free slots, lowest first, held once; the cache grows when there are too few."""
        total = sum(counts)
        free = np.flatnonzero(self._holders == 0)
        if len(free) < total:
            missing = max(total - len(free), len(self._holders), 256)
            self._holders = np.concatenate([self._holders, np.zeros(missing, dtype=np.int64)])
            free = np.flatnonzero(self._holders == 0)
        self._holders[free[:total]] = 1
        return np.split(free[:total], np.cumsum(counts)[:-1])


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A remembered prompt: keys and values are other ones with another adapter."""

    adapter: "weakref.ref[LlamaAdapter] | None"
    ids: tuple[int, ...]


def _reference(adapter: LlamaAdapter | None) -> "weakref.ref[LlamaAdapter] | None":
    """Weak: what is remembered of an adapter must not keep it in memory. It is equal to no other
    one, even when the adapter is gone."""
    return None if adapter is None else weakref.ref(adapter)


def _adapted(
    wants: Sequence[Sequence[Growth]], adapters: Sequence[LlamaAdapter | None]
) -> list[tuple[LlamaAdapter, slice]]:
    """Which of the new tokens, in order, belong to which adapter."""
    found: list[tuple[LlamaAdapter, slice]] = []
    start = 0
    for adapter, requests in groupby(zip(adapters, wants, strict=True), key=itemgetter(0)):
        stop = start + sum(len(growth.ids) for _, growths in requests for growth in growths)
        if adapter is not None:
            found.append((adapter, slice(start, stop)))
        start = stop
    return found


def _view(grown: Sequence[tuple[Path, int]]) -> View:
    """What the last tokens, so many, of each path see: the path up to themselves."""
    seen = np.unique(np.concatenate([path.slots for path, _ in grown]))
    visible = np.zeros((sum(count for _, count in grown), len(seen)), dtype=bool)
    start = 0
    for path, count in grown:
        places, rows = np.searchsorted(seen, path.slots), slice(start, start + count)
        visible[rows, places[:-count]] = True
        visible[rows, places[-count:]] = np.tri(count, dtype=bool)
        start = rows.stop
    return View(seen, visible)


def _log_probabilities(logits: Tensor, growths: Sequence[Growth]) -> Iterator[Tensor]:
    """What is wanted of each row of (rows, V), in order."""
    number = 0
    for growth in growths:
        for tokens in [None] if growth.wanted is None else growth.wanted:
            # Row by row: a row fits the processor's cache, and a search wants few of its numbers.
            row = logits[number].float()
            number += 1
            if tokens is None:
                yield torch.log_softmax(row, dim=-1).cpu()
            else:
                yield (row[list(tokens)] - row.logsumexp(-1)).cpu()


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
