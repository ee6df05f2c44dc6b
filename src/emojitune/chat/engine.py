"""Engine: ids in, log-probabilities out. One cache, one batch, any number of requests.

Every token in the cache is a node of a forest: it sees the path from its root, and nothing else.
A request grows its own paths, so several replies to one prompt, the branches of a search and
unrelated requests are all just new nodes of the next forward pass. Paths that begin with the same
tokens share their nodes: that is the prefix cache.

Knows no text, no labels and no HTTP. A request is a generator that yields the `Growth`s it wants
and is sent what came of them; all requests advance in step, one forward pass after the other.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache

Slots = NDArray[np.int64]

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
    """Runs requests on one model.

    Args:
        module: A causal language model of transformers, in evaluation mode.
        executor: Runs the passes. One thread, shared by all engines of a process: each thread that
            uses torch gets OpenMP threads of its own, and where there are more of them than cores
            they stop to wait actively, which makes a pass take twice as long.
        capacity: Tokens that the cache may hold, those of all running requests together.
    """

    def __init__(
        self, module: Any, device: torch.device, executor: Executor, *, capacity: int = 32_768
    ) -> None:
        self._forest = _Forest(module, device)
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
    ) -> None:
        """Queue a request; it starts, in the executor's thread, when the cache has room for it.

        Args:
            prompt: Its ids; all but the last may already be in the cache when it starts.
            start: Makes the request, given what the cache holds of the prompt.
            reserve: Tokens that the request will hold at most, prompt included.
            on_error: Told when the request, or the model under it, raises.
            cancelled: Asked before every pass; a cancelled request is dropped.
        """
        with self._lock:
            self._waiting.append(_Running(tuple(prompt), start, reserve, on_error, cancelled))
            if not self._scheduled:
                self._scheduled = True
                self._executor.submit(self._pass)

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

    def _keep(self, request: "_Running") -> bool:
        """Start a new request; drop one that is done or cancelled, with all its nodes."""
        if request.cancelled():
            request.wants = []
        elif request.generator is None:
            found = self._forest.longest_known(request.prompt)
            request.generator = request.start(found)
            self._step(request, None)
        if not request.wants:
            self._forest.release(request.held)
        return bool(request.wants)

    def _advance(self, active: list["_Running"]) -> None:
        try:
            results = self._forest.grow([growth for request in active for growth in request.wants])
        except Exception as error:  # out of memory, say: all of this pass are told, none hangs
            for request in active:
                request.fail(error)
            return
        for request in active:
            mine, results = results[: len(request.wants)], results[len(request.wants) :]
            if not request.remembered:
                request.remembered = True
                self._forest.remember(request.prompt, mine[0].path)
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
    ) -> None:
        self.prompt = prompt
        self.start = start
        self.reserve = reserve
        self.cancelled = cancelled
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

    def __init__(self, module: Any, device: torch.device, *, remembered: int = 8192) -> None:
        self._module = module
        self._device = device
        self._cache = _SlotCache(module.config.num_hidden_layers)
        self._holders = np.zeros(0, dtype=np.int64)
        self._known: OrderedDict[tuple[int, ...], Path] = OrderedDict()
        self._limit = remembered  # tokens, those of all remembered prompts together

    def longest_known(self, prompt: Sequence[int]) -> Prompt:
        """The longest cached beginning of `prompt`, its last token left out."""
        best, path, source = 0, Path(_EMPTY), None
        for ids, known in self._known.items():
            shared = _shared(ids, prompt[:-1])
            if shared > best:
                best, path, source = shared, known, ids
        if source is not None:
            self._known.move_to_end(source)
        return Prompt(Path(path.slots[:best]), best)

    def remember(self, prompt: tuple[int, ...], path: Path) -> None:
        """Keep a prompt's nodes for later requests that begin alike."""
        if prompt in self._known or len(prompt) > self._limit:
            return
        kept = Path(path.slots[: len(prompt)])
        self._holders[kept.slots] += 1
        self._known[prompt] = kept
        while sum(map(len, self._known)) > self._limit:
            _, oldest = self._known.popitem(last=False)
            self.release([oldest.slots])

    def release(self, held: Sequence[Slots]) -> None:
        """Give nodes back; a slot is free when nobody holds it."""
        for slots in held:
            self._holders[slots] -= 1

    @torch.inference_mode()
    def grow(self, growths: Sequence[Growth]) -> list[Grown]:
        """One forward pass over the new tokens of all `growths`."""
        own = self._take([len(growth.ids) for growth in growths])
        paths = [
            Path(np.concatenate([growth.parent.slots, slots]))
            for growth, slots in zip(growths, own, strict=True)
        ]
        try:
            logits = self._forward(growths, paths)
        except BaseException:
            self.release(own)
            raise
        rows = _log_probabilities(logits, growths)
        return [
            Grown(path, [next(rows) for _ in range(growth.rows)])
            for path, growth in zip(paths, growths, strict=True)
        ]

    def _forward(self, growths: Sequence[Growth], paths: Sequence[Path]) -> Tensor:
        """Logits after the ids that something is wanted after, (rows, V)."""
        new = [len(growth.ids) for growth in growths]
        stops = np.cumsum(new)
        rows = [
            range(stop - growth.rows, stop) for growth, stop in zip(growths, stops, strict=True)
        ]
        # Attention reads what this pass sees, not all that the cache holds.
        seen = np.unique(np.concatenate([path.slots for path in paths]))
        visible = np.zeros((stops[-1], len(seen)), dtype=bool)
        for path, count, stop in zip(paths, new, stops, strict=True):
            places = np.searchsorted(seen, path.slots)
            visible[stop - count : stop, places[:-count]] = True
            visible[stop - count : stop, places[-count:]] = np.tri(count, dtype=bool)
        ids = [token for growth in growths for token in growth.ids]
        positions = [np.arange(len(p) - n, len(p)) for p, n in zip(paths, new, strict=True)]
        slots = [path.slots[-n:] for path, n in zip(paths, new, strict=True)]
        self._cache.prepare(self._tensor(np.concatenate(slots)), self._tensor(seen))
        logits: Tensor = self._module(
            input_ids=self._tensor(np.array([ids])),
            position_ids=self._tensor(np.concatenate(positions))[None],
            attention_mask=self._tensor(visible)[None, None],
            past_key_values=self._cache,
            logits_to_keep=self._tensor(np.concatenate(rows)),
            use_cache=True,
        ).logits[0]
        return logits

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._device)

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


class _SlotCache(Cache):  # type: ignore[misc]
    """Keys and values by slot; transformers calls `update` once a layer."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def prepare(self, new: Tensor, seen: Tensor) -> None:
        """Say which slots the next pass writes, and which it reads, in order."""
        self._new = new
        self._seen = seen
        self._size = int(seen[-1]) + 1

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return len(self._seen)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (1, heads, N, dim) into the new slots; return those that are seen."""
        keys = self._keys[layer_idx] = self._write(self._keys[layer_idx], key_states)
        values = self._values[layer_idx] = self._write(self._values[layer_idx], value_states)
        return keys.index_select(2, self._seen), values.index_select(2, self._seen)

    def _write(self, store: Tensor | None, new: Tensor) -> Tensor:
        size = 0 if store is None else store.shape[2]
        if self._size > size:
            wider = new.new_zeros(*new.shape[:2], max(2 * size, self._size, 256), new.shape[3])
            if store is not None:
                wider[:, :, :size] = store
            store = wider
        assert store is not None
        return store.index_copy_(2, self._new, new)


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
