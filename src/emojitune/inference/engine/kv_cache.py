"""The engine's cache: every token in it is a node of a forest, and sees the path from its root.

A request grows its own paths, so several replies to one prompt, the branches of a search and
unrelated requests are all just new nodes of the next forward pass. Paths of one owner that begin
with the same tokens, and are computed with the same adapter or none, share their nodes: that is the
prefix cache.
"""

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from emojitune.inference.engine.batch import Batch, ForwardPass, Slots, View
from emojitune.models.packed_llama import LlamaAdapter

_EMPTY: Slots = np.zeros(0, dtype=np.int64)
_FEW_SLOTS = 1024  # are never given back
_ROWS = 64  # of log-probabilities at a time: over a large vocabulary they take some room


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
            log-probability of coming next is wanted; None in place of them wants that of all
            tokens. None altogether wants all after the last id.
        keep: False when nothing will grow from the path: its nodes are free after the pass.
        state: Index of the id whose hidden state is wanted.
    """

    parent: Path
    ids: Sequence[int]
    wanted: Sequence[Sequence[int] | None] | None = None
    keep: bool = True
    state: int | None = None

    @property
    def rows(self) -> int:
        """How many of the last ids something is wanted after."""
        return 1 if self.wanted is None else len(self.wanted)


@dataclass(frozen=True, slots=True)
class Grown:
    """The longer path, for each row that was wanted its log-probabilities, and the hidden state
    (C,) where that was wanted; in float32."""

    path: Path
    rows: list[Tensor]
    state: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as far as the cache knows it: `path` covers its first `cached` tokens."""

    path: Path
    cached: int


class Forest:
    """The cache: slots for tokens, who holds them, and the forward pass that fills them."""

    def __init__(self, forward: ForwardPass, *, remembered: int = 8192) -> None:
        self._forward_pass = forward
        self._holders = np.zeros(0, dtype=np.int64)
        self._known: OrderedDict[_Prefix, Path] = OrderedDict()
        self._limit = remembered  # tokens, those of all remembered prompts together

    def longest_known(
        self, prompt: Sequence[int], adapter: LlamaAdapter | None, owner: Hashable = None
    ) -> Prompt:
        """The longest beginning of `prompt` that its owner has cached, its last token left out."""
        best, path, source = 0, Path(_EMPTY), None
        for prefix, known in self._known.items():
            if (prefix.adapter, prefix.owner) != (_reference(adapter), owner):
                continue
            shared = _shared(prefix.ids, prompt[:-1])
            if shared > best:
                best, path, source = shared, known, prefix
        if source is not None:
            self._known.move_to_end(source)
        return Prompt(Path(path.slots[:best]), best)

    def remember(
        self,
        prompt: tuple[int, ...],
        adapter: LlamaAdapter | None,
        path: Path,
        owner: Hashable = None,
    ) -> None:
        """Keep a prompt's nodes for its owner's later requests that begin alike."""
        prefix = _Prefix(_reference(adapter), owner, prompt)
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

    def shrink(self) -> None:
        """Give memory back where far more slots were once needed than are held now."""
        held = np.flatnonzero(self._holders)
        needed = max(2 * (int(held[-1]) + 1) if len(held) else 0, _FEW_SLOTS)
        if len(self._holders) > 2 * needed:
            self._holders = self._holders[:needed]
            self._forward_pass.keep(needed)

    @torch.inference_mode()
    def grow(
        self, wants: Sequence[Sequence[Growth]], adapters: Sequence[LlamaAdapter | None]
    ) -> list[list[Grown]]:
        """One forward pass over the new tokens of all growths, those of a request together.

        Args:
            adapters: What each request is computed with; few calls where those of one lie together.
        """
        growths = [growth for request in wants for growth in request]
        own = self._take([len(growth.ids) for growth in growths])
        paths = [
            Path(np.concatenate([growth.parent.slots, slots]))
            for growth, slots in zip(growths, own, strict=True)
        ]
        try:
            logits, states = self._forward(wants, adapters, paths)
        except BaseException:
            self.release(own)
            raise
        rows, found = _log_probabilities(logits, growths), iter(states.float().cpu())
        grown = iter(
            [
                Grown(
                    path,
                    [next(rows) for _ in range(growth.rows)],
                    None if growth.state is None else next(found),
                )
                for path, growth in zip(paths, growths, strict=True)
            ]
        )
        return [[next(grown) for _ in request] for request in wants]

    def _forward(
        self,
        wants: Sequence[Sequence[Growth]],
        adapters: Sequence[LlamaAdapter | None],
        paths: Sequence[Path],
    ) -> tuple[Tensor, Tensor]:
        """Logits after the ids that something is wanted after, (rows, V), and the hidden states
        that are wanted, (states, C)."""
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
            states=np.array(
                [
                    stop - len(growth.ids) + growth.state
                    for growth, stop in zip(growths, stops, strict=True)
                    if growth.state is not None
                ],
                dtype=np.int64,
            ),
        )
        return self._forward_pass.compute(batch)

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
    owner: Hashable
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
    wanted: list[Sequence[int] | None] = [
        tokens
        for growth in growths
        for tokens in ([None] if growth.wanted is None else growth.wanted)
    ]
    for start in range(0, len(wanted), _ROWS):
        # torch's softmax is several times as quick as its sum of exponentials.
        some = torch.log_softmax(logits[start : start + _ROWS], dim=-1, dtype=torch.float32)
        for row, tokens in zip(some, wanted[start : start + _ROWS], strict=True):
            # A search wants few numbers of a row: only those leave a device.
            yield (row if tokens is None else row[list(tokens)]).cpu()


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
