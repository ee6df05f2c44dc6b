"""The KV cache: every token in it is a node of a forest, and attends to the path from its root.

          slot 0 ─ slot 1 ─ slot 2 ─┬─ slot 3 ─ slot 4      reply 1, or one branch of a search
          └─────── prompt ────────┘ ├─ slot 5                another
                                    └─ slot 6 ─ slot 7       another

Several replies to one prompt, the branches of a search and unrelated requests are all just new
nodes of the next forward pass. Paths of one owner that begin with the same tokens, and are computed
with the same adapter or none, share their nodes: that is the prefix cache.
"""

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from emojitune.inference.engine.batch import (
    Adapter,
    AttentionMask,
    ForwardBatch,
    ModelRunner,
    Slots,
)
from emojitune.inference.engine.slices import Slices, compute

_EMPTY: Slots = np.zeros(0, dtype=np.int64)
_MIN_SLOTS = 1024  # never given back
_RETAINED_TOKENS = 1024  # of inserted prompts, however old
_ROWS = 64  # of log-probabilities at a time: over a large vocabulary they take some memory


@dataclass(frozen=True, slots=True)
class Path:
    """The slots of cached tokens, from the root on. Frozen; extending it makes another."""

    slots: Slots

    def __len__(self) -> int:
        return len(self.slots)


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """Tokens to compute after a path, and the results that are requested.

    Attributes:
        parent: The path that the tokens extend.
        ids: The new tokens.
        logprob_tokens: For each of the last ids, as many as there are entries, the tokens whose
            log-probability of coming next is requested; None as an entry requests all tokens.
            None altogether requests all tokens after the last id.
        keep: False where no later request extends the path: its slots are freed after the pass.
        hidden_at: Index of the id whose hidden state is requested.
    """

    parent: Path
    ids: Sequence[int]
    logprob_tokens: Sequence[Sequence[int] | None] | None = None
    keep: bool = True
    hidden_at: int | None = None

    @property
    def logprob_rows(self) -> int:
        """After how many of the last ids log-probabilities are requested."""
        return 1 if self.logprob_tokens is None else len(self.logprob_tokens)


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """A pass's results for one request, in float32.

    Attributes:
        path: The extended path.
        logprobs: A row of log-probabilities for each entry of `logprob_tokens`, in its order: (V,),
            or of the requested tokens alone.
        hidden_state: The requested hidden state, (C,).
    """

    path: Path
    logprobs: list[Tensor]
    hidden_state: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's ids, and the path of its longest cached prefix."""

    ids: Sequence[int]
    path: Path

    @property
    def cached(self) -> int:
        """Tokens that need not be computed again."""
        return len(self.path)

    @property
    def uncached(self) -> Sequence[int]:
        """The ids after the cached prefix; at least the last one."""
        return self.ids[self.cached :]


class KVCache(Generic[Adapter]):
    """Slots for tokens, their reference counts, and the forward pass that fills them."""

    def __init__(
        self,
        runner: ModelRunner[Adapter],
        *,
        prefix_tokens: int = 8192,
        hidden_only: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """A cache without tokens.

        Args:
            prefix_tokens: The most tokens of all inserted prompts together.
            hidden_only: Whether hidden states are all that is ever requested.
            clock: Seconds, by which inserted prompts grow old.
        """
        self._runner = runner
        self._ref_counts = np.zeros(0, dtype=np.int64)
        self._prefixes: OrderedDict[_Prefix[Adapter], _CachedPath] = OrderedDict()
        self._clock = clock
        self._prefix_tokens = prefix_tokens
        self._hidden_only = hidden_only

    def match_prefix(
        self, prompt: Sequence[int], adapter: Adapter | None, owner: Hashable = None
    ) -> Prompt:
        """The prompt with its longest prefix that its owner has cached, its last token left out."""
        best, path, source = 0, Path(_EMPTY), None
        for prefix, cached in self._prefixes.items():
            if (prefix.adapter, prefix.owner) != (_reference(adapter), owner):
                continue
            shared = _common_prefix(prefix.ids, prompt[:-1])
            if shared > best:
                best, path, source = shared, cached.path, prefix
        if source is not None:
            self._prefixes[source].used_at = self._clock()
            self._prefixes.move_to_end(source)
        return Prompt(prompt, Path(path.slots[:best]))

    def insert(
        self,
        prompt: tuple[int, ...],
        adapter: Adapter | None,
        path: Path,
        owner: Hashable = None,
    ) -> None:
        """Keep a prompt's slots for later requests of its owner that begin with the same tokens."""
        prefix = _Prefix(_reference(adapter), owner, prompt)
        if prefix in self._prefixes or len(prompt) > self._prefix_tokens:
            return
        kept_path = Path(path.slots[: len(prompt)])
        self.hold(kept_path)
        self._prefixes[prefix] = _CachedPath(kept_path, self._clock())
        while sum(len(kept.ids) for kept in self._prefixes) > self._prefix_tokens:
            _, oldest = self._prefixes.popitem(last=False)
            self.release([oldest.path.slots])

    def hold(self, path: Path) -> Slots:
        """The slots of a path, with one more reference to each."""
        self._ref_counts[path.slots] += 1
        return path.slots

    def release(self, held: Sequence[Slots]) -> None:
        """Drop one reference to each slot; a slot without references is free."""
        for slots in held:
            self._ref_counts[slots] -= 1

    def forget(self, *, unused_since: float) -> None:
        """Drop inserted prompts that were last used before a time, but not the latest of them."""
        kept = 0
        for prefix, cached in reversed(list(self._prefixes.items())):
            kept += len(prefix.ids)
            if kept > _RETAINED_TOKENS and cached.used_at < unused_since:
                del self._prefixes[prefix]
                self.release([cached.path.slots])

    def compact(self) -> None:
        """Give memory back where far more slots were once needed than are held now.

        Held slots move, so that no path may be in use but those of inserted prompts.
        """
        held = np.flatnonzero(self._ref_counts)
        needed = max(2 * len(held), _MIN_SLOTS)
        if len(self._ref_counts) <= needed:
            return
        self._runner.compact(held)
        moved_to = np.cumsum(self._ref_counts > 0) - 1
        for cached in self._prefixes.values():
            cached.path = Path(moved_to[cached.path.slots])
        counts = self._ref_counts[held]
        self._ref_counts = np.zeros(needed, dtype=np.int64)
        self._ref_counts[: len(held)] = counts

    def forward(
        self,
        requests: Sequence[Sequence[ForwardRequest]],
        adapters: Sequence[Adapter | None],
    ) -> list[list[ForwardResult]]:
        """One forward pass over the new tokens of all requests; see `forward_slices`."""
        return compute(self.forward_slices(requests, adapters))

    @torch.inference_mode()
    def forward_slices(
        self,
        requests: Sequence[Sequence[ForwardRequest]],
        adapters: Sequence[Adapter | None],
    ) -> Slices[list[list[ForwardResult]]]:
        """One forward pass in slices, between which there may be other passes.

        Args:
            requests: In groups whose paths may share slots; a group has one attention mask.
            adapters: One for each group; equal ones should be adjacent, which takes fewer calls.
        """
        flat = [request for group in requests for request in group]
        # New slots are allocated before the pass, so that each path is complete: masks and
        # positions of the new tokens are derived from it.
        allocated = self._allocate([len(request.ids) for request in flat])
        paths = [
            Path(np.concatenate([request.parent.slots, slots]))
            for request, slots in zip(flat, allocated, strict=True)
        ]
        try:
            logits, states = yield from self._runner.forward(
                _batch(requests, adapters, paths, self._hidden_only)
            )
        except BaseException:
            self.release(allocated)
            raise
        # Rows and states come in the order of the requests: each takes its own off the front.
        rows, hidden = _log_probabilities(logits, flat), iter(states.float().cpu())
        results = iter(
            [
                ForwardResult(
                    path,
                    [next(rows) for _ in range(request.logprob_rows)],
                    None if request.hidden_at is None else next(hidden),
                )
                for path, request in zip(paths, flat, strict=True)
            ]
        )
        return [[next(results) for _ in group] for group in requests]

    def _allocate(self, counts: Sequence[int]) -> list[Slots]:
        """Free slots, lowest first, with one reference; the cache grows where they are too few."""
        total = sum(counts)
        free = np.flatnonzero(self._ref_counts == 0)
        if len(free) < total:
            missing = max(total - len(free), len(self._ref_counts), 256)
            self._ref_counts = np.concatenate([self._ref_counts, np.zeros(missing, dtype=np.int64)])
            free = np.flatnonzero(self._ref_counts == 0)
        self._ref_counts[free[:total]] = 1
        return np.split(free[:total], np.cumsum(counts)[:-1])


@dataclass(frozen=True, slots=True)
class _Prefix(Generic[Adapter]):
    """An inserted prompt: its keys and values differ with each adapter."""

    adapter: "weakref.ref[Adapter] | None"
    owner: Hashable
    ids: tuple[int, ...]


@dataclass(slots=True)
class _CachedPath:
    """The slots of an inserted prompt, and when it was last used."""

    path: Path
    used_at: float


def _reference(adapter: Adapter | None) -> "weakref.ref[Adapter] | None":
    """Weak, because a cached prefix must not keep its adapter in memory. It equals no other one,
    even when the adapter is gone."""
    return None if adapter is None else weakref.ref(adapter)


def _batch(
    requests: Sequence[Sequence[ForwardRequest]],
    adapters: Sequence[Adapter | None],
    paths: Sequence[Path],
    hidden_only: bool,
) -> ForwardBatch[Adapter]:
    """All new tokens of a pass in one row, request after request:

    group:       0                 0            1
    request:     ids of 0          ids of 1     ids of 2
    index:       0  1  2  3        4  5         6  7  8
    logits:               x        x  x               x        the last ids of each request
    hidden:               x                        x           hidden_at, counted from its start
    """
    flat = [request for group in requests for request in group]
    new = [len(request.ids) for request in flat]
    stops = np.cumsum(new)
    rows = [
        np.arange(stop - request.logprob_rows, stop)
        for request, stop in zip(flat, stops, strict=True)
    ]
    pairs = iter(zip(paths, new, strict=True))
    return ForwardBatch(
        ids=np.array([token for request in flat for token in request.ids]),
        # The new tokens are the last of their path, wherever its slots lie.
        positions=np.concatenate(
            [np.arange(len(p) - n, len(p)) for p, n in zip(paths, new, strict=True)]
        ),
        slots=np.concatenate([path.slots[-n:] for path, n in zip(paths, new, strict=True)]),
        # A mask for each group, not one for all: no group pays for the tokens of others.
        masks=[_mask([next(pairs) for _ in group]) for group in requests],
        logit_indices=np.concatenate(rows),
        adapters=_adapter_slices(requests, adapters),
        hidden_indices=np.array(
            [
                stop - len(request.ids) + request.hidden_at
                for request, stop in zip(flat, stops, strict=True)
                if request.hidden_at is not None
            ],
            dtype=np.int64,
        ),
        hidden_only=hidden_only,
    )


def _adapter_slices(
    requests: Sequence[Sequence[ForwardRequest]], adapters: Sequence[Adapter | None]
) -> list[tuple[Adapter, slice]]:
    """The new tokens of each adapter, as slices of all."""
    slices: list[tuple[Adapter, slice]] = []
    start = 0
    for adapter, groups in groupby(zip(adapters, requests, strict=True), key=itemgetter(0)):
        stop = start + sum(len(request.ids) for _, group in groups for request in group)
        if adapter is not None:
            slices.append((adapter, slice(start, stop)))
        start = stop
    return slices


def _mask(paths: Sequence[tuple[Path, int]]) -> AttentionMask:
    """The mask of the last tokens of each path, as many as the number beside it: each token attends
    to the path up to itself."""
    slots = np.unique(np.concatenate([path.slots for path, _ in paths]))
    visible = np.zeros((sum(count for _, count in paths), len(slots)), dtype=bool)
    start = 0
    for path, count in paths:
        columns, rows = np.searchsorted(slots, path.slots), slice(start, start + count)
        visible[rows, columns[:-count]] = True
        visible[rows, columns[-count:]] = np.tri(count, dtype=bool)
        start = rows.stop
    return AttentionMask(slots, visible)


def _log_probabilities(logits: Tensor, requests: Sequence[ForwardRequest]) -> Iterator[Tensor]:
    """The requested log-probabilities of each row of logits (rows, V), in order."""
    requested: list[Sequence[int] | None] = [
        tokens
        for request in requests
        for tokens in ([None] if request.logprob_tokens is None else request.logprob_tokens)
    ]
    for start in range(0, len(requested), _ROWS):
        # torch's softmax is several times as fast as its sum of exponentials.
        rows = torch.log_softmax(logits[start : start + _ROWS], dim=-1, dtype=torch.float32)
        for row, tokens in zip(rows, requested[start : start + _ROWS], strict=True):
            # A search needs few numbers of a row: only those leave a device.
            yield (row if tokens is None else row[list(tokens)]).cpu()


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
