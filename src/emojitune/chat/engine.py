"""Engine: ids in, log-probabilities out. One cache, one batch, any number of requests.

Every token in the cache is a node of a forest: it sees the path from its root, and nothing else.
A request grows its own paths, so several replies to one prompt, the branches of a search and
unrelated requests are all just new nodes of the next forward pass. Paths that begin with the same
tokens share their nodes: that is the prefix cache.

Knows no text, no labels and no HTTP. A request is a generator that yields the `Growth`s it wants
and is sent what came of them; the engine's thread runs all of them in step.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache

Slots = NDArray[np.int64]

_log = logging.getLogger(__name__)

_LINGER = 10.0  # seconds without work after which the thread ends

_EMPTY: Slots = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Path:
    """Tokens in the cache, from the root on: their slots. Frozen; growing it makes another."""

    slots: Slots

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class Growth:
    """`ids` to put behind `parent`; wanted are log-probabilities after the last `outputs` ids."""

    parent: Path
    ids: Sequence[int]
    outputs: int = 1


@dataclass(frozen=True, slots=True)
class Grown:
    """The longer path, and log-probabilities of the next token, (outputs, V) in float32."""

    path: Path
    log_probabilities: Tensor


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
        capacity: Tokens that the cache may hold, those of all running requests together.
    """

    def __init__(self, module: Any, device: torch.device, *, capacity: int = 32_768) -> None:
        self._forest = _Forest(module, device)
        self._capacity = capacity
        self._waiting: list[_Running] = []
        self._condition = threading.Condition()
        self._running = False

    def submit(
        self,
        prompt: Sequence[int],
        start: Start,
        *,
        reserve: int,
        on_error: Callable[[Exception], None],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Queue a request; it starts, in the engine's thread, when the cache has room for it.

        Args:
            prompt: Its ids; all but the last may already be in the cache when it starts.
            start: Makes the request, given what the cache holds of the prompt.
            reserve: Tokens that the request will add at most, prompt included.
            on_error: Told when the request, or the model under it, raises.
            cancelled: Asked before every pass; a cancelled request is dropped.
        """
        with self._condition:
            self._waiting.append(_Running(tuple(prompt), start, reserve, on_error, cancelled))
            self._condition.notify()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="engine", daemon=True).start()

    def _run(self) -> None:
        active: list[_Running] = []
        while self._wait(active):
            active = [request for request in active if self._keep(request)]
            if active:
                self._advance(active)

    def _wait(self, active: list["_Running"]) -> bool:
        """Admit what fits; without anything to do, sleep.

        False when nobody asked for a while. The thread then ends, and with it the last reference
        to a model that was given up; the next request starts another.
        """
        with self._condition:
            if not active and not self._waiting and not self._condition.wait(_LINGER):
                self._running = False
                return False
            used = sum(request.reserve for request in active)
            while self._waiting and (
                not active or used + self._waiting[0].reserve <= self._capacity
            ):
                request = self._waiting.pop(0)
                used += request.reserve
                active.append(request)
            return True

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
            for growth, grown in zip(request.wants, mine, strict=True):
                request.held.append(grown.path.slots[len(growth.parent) :])
            if not request.remembered:
                request.remembered = True
                self._forest.remember(request.prompt, mine[0].path)
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
        count = sum(len(growth.ids) for growth in growths)
        slots = self._take(count)
        in_use = int(self._holders.nonzero()[0][-1]) + 1
        visible = np.zeros((count, in_use), dtype=bool)
        positions = np.zeros(count, dtype=np.int64)
        wanted: list[int] = []
        paths: list[Path] = []
        start = 0
        for growth in growths:
            stop = start + len(growth.ids)
            own, before = slots[start:stop], len(growth.parent)
            visible[start:stop, growth.parent.slots] = True
            visible[start:stop, own] = np.tri(stop - start, dtype=bool)
            positions[start:stop] = np.arange(before, before + stop - start)
            wanted += range(stop - growth.outputs, stop)
            paths.append(Path(np.concatenate([growth.parent.slots, own])))
            start = stop
        ids = [token for growth in growths for token in growth.ids]
        try:
            log_probabilities = self._forward(ids, positions, visible, slots, wanted)
        except BaseException:
            self.release([slots])
            raise
        sizes = [growth.outputs for growth in growths]
        pieces = torch.split(log_probabilities, sizes)
        return [Grown(path, piece) for path, piece in zip(paths, pieces, strict=True)]

    def _forward(
        self,
        ids: list[int],
        positions: NDArray[np.int64],
        visible: NDArray[np.bool_],
        slots: Slots,
        wanted: list[int],
    ) -> Tensor:
        self._cache.prepare(torch.from_numpy(slots).to(self._device), visible.shape[1])
        logits = self._module(
            input_ids=torch.tensor([ids], device=self._device),
            position_ids=torch.from_numpy(positions)[None].to(self._device),
            attention_mask=torch.from_numpy(visible)[None, None].to(self._device),
            past_key_values=self._cache,
            logits_to_keep=torch.tensor(wanted, device=self._device),
            use_cache=True,
        ).logits[0]
        return torch.log_softmax(logits.float(), dim=-1).cpu()

    def _take(self, count: int) -> Slots:
        """Free slots, lowest first, held once; the cache grows when there are too few."""
        free = np.flatnonzero(self._holders == 0)
        if len(free) < count:
            missing = max(count - len(free), len(self._holders), 256)
            self._holders = np.concatenate([self._holders, np.zeros(missing, dtype=np.int64)])
            free = np.flatnonzero(self._holders == 0)
        slots = free[:count]
        self._holders[slots] = 1
        return slots


class _SlotCache(Cache):  # type: ignore[misc]
    """Keys and values by slot; transformers calls `update` once a layer."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self._slots = torch.zeros(0, dtype=torch.long)
        self._in_use = 0

    def prepare(self, slots: Tensor, in_use: int) -> None:
        """Say where the next pass writes, and how many slots it reads."""
        self._slots = slots
        self._in_use = in_use

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._in_use

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (1, heads, N, dim) into the slots; return everything in use."""
        keys = self._keys[layer_idx] = self._write(self._keys[layer_idx], key_states)
        values = self._values[layer_idx] = self._write(self._values[layer_idx], value_states)
        return keys[:, :, : self._in_use], values[:, :, : self._in_use]

    def _write(self, store: Tensor | None, new: Tensor) -> Tensor:
        size = 0 if store is None else store.shape[2]
        if self._in_use > size:
            wider = new.new_zeros(*new.shape[:2], max(2 * size, self._in_use, 256), new.shape[3])
            if store is not None:
                wider[:, :, :size] = store
            store = wider
        assert store is not None
        return store.index_copy_(2, self._slots, new)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
