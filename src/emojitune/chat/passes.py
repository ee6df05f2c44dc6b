"""Forward passes over the engine's cache: the fast one where the model fits, else its own modules.

A pass computes new tokens, which lie in slots of the cache and see other slots of it, and returns
logits where they are wanted. It owns keys and values; which slots are free is the engine's matter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import Cache

from emojitune.models.llama import JoinedLlama, fits, normalize, rotate
from emojitune.models.products import Product

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query (T, H, D), key and value (T, K, D)) to (T, H × D)."""

Slots = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class View:
    """What the new tokens of one request see: `slots` (K,), by `visible` (Q, K)."""

    slots: Slots
    visible: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Batch:
    """T new tokens, those of a request behind one another, a view for each request.

    Attributes:
        ids: Token ids, (T,).
        positions: Positions in their sequences, (T,).
        slots: Where their keys and values go, (T,).
        views: One a request, in the order of the tokens.
        wanted: Indices of the tokens after which logits are wanted.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: Slots
    views: Sequence[View]
    wanted: NDArray[np.int64]


class ForwardPass(Protocol):
    """Computes a batch, filling its slots."""

    def logits(self, batch: Batch) -> Tensor:
        """Logits (wanted, V)."""
        ...


def forward_pass(module: Any, device: torch.device) -> ForwardPass:
    """The best way through `module`."""
    if fits(module):
        return LlamaPass(JoinedLlama(module), device)
    return ModulePass(module, device)


class LlamaPass:
    """Through joined products; attention by request, so that nobody pays for the others' tokens."""

    def __init__(self, llama: JoinedLlama, device: torch.device) -> None:
        self._llama = llama
        self._products = [
            tuple(map(Product, (layer.qkv, layer.out, layer.gate_up, layer.down)))
            for layer in llama.layers
        ]
        self._head = Product(llama.head)
        self._device = device
        self._keys: list[Tensor] = [self._empty() for _ in llama.layers]
        self._values: list[Tensor] = [self._empty() for _ in llama.layers]

    def logits(self, batch: Batch) -> Tensor:
        size = 1 + max(int(view.slots.max()) for view in batch.views)
        new = _tensor(batch.slots, self._device)
        groups = [
            _Group.of(members, self._device, self._llama.embedding.dtype)
            for members in _alike(batch.views)
        ]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self._keys[layer] = _write(self._keys[layer], new, key, size)
            self._values[layer] = _write(self._values[layer], new, value, size)
            mixed = torch.empty_like(query)
            query = query * self._llama.head_dim**-0.5
            for group in groups:
                group.attend(query, self._keys[layer], self._values[layer], mixed)
            return mixed.view(len(mixed), -1)

        ids, positions = _tensor(batch.ids, self._device), _tensor(batch.positions, self._device)
        hidden = self._hidden(ids, positions, attend)[_tensor(batch.wanted, self._device)]
        normed, _ = normalize(hidden, self._llama.final_norm, self._llama.eps)
        return self._head(normed)

    def _hidden(self, ids: Tensor, positions: Tensor, attend: _Attend) -> Tensor:
        """Hidden states before the last norm, (T, C), for ids and positions (T,)."""
        llama = self._llama
        cos, sin = llama.rotation(positions)
        x = functional.embedding(ids, llama.embedding)
        for number, (layer, products) in enumerate(zip(llama.layers, self._products, strict=True)):
            to_qkv, to_out, to_gate_up, to_down = products
            normed, _ = normalize(x, layer.input_norm, llama.eps)
            qkv = to_qkv(normed)
            rotate(qkv[:, : llama.rotated], cos, sin)
            x = x + to_out(attend(number, *llama.split(qkv)))
            normed, _ = normalize(x, layer.mlp_norm, llama.eps)
            gate, up = to_gate_up(normed).chunk(2, dim=1)
            x = x + to_down(functional.silu(gate) * up)
        return x

    def _empty(self) -> Tensor:
        shape = (0, self._llama.kv_heads, self._llama.head_dim)
        return torch.empty(shape, dtype=self._llama.embedding.dtype, device=self._device)


@dataclass(frozen=True, slots=True)
class _Group:
    """R requests, padded to Q new tokens and K seen slots each.

    Attributes:
        queries: Token indices, (R × Q,); 0 for padding.
        slots: Seen slots, (R × K,); 0 for padding.
        hidden: Added to the scores, 0 or -inf, (R, 1, Q, K).
        places: Of the R × Q, those that are no padding.
        tokens: Their token indices.
    """

    queries: Tensor
    slots: Tensor
    hidden: Tensor
    places: Tensor
    tokens: Tensor

    @staticmethod
    def of(
        members: Sequence[tuple[int, View]], device: torch.device, dtype: torch.dtype
    ) -> "_Group":
        """The group of views, each with the index of its first token."""
        most = max(len(view.visible) for _, view in members)
        widest = max(len(view.slots) for _, view in members)
        queries = np.zeros((len(members), most), dtype=np.int64)
        slots = np.zeros((len(members), widest), dtype=np.int64)
        hidden = np.full((len(members), most, widest), -np.inf, dtype=np.float32)
        real = np.zeros((len(members), most), dtype=bool)
        for number, (start, view) in enumerate(members):
            count, width = view.visible.shape
            queries[number, :count] = np.arange(start, start + count)
            slots[number, :width] = view.slots
            hidden[number, :count, :width][view.visible] = 0.0
            hidden[number, count:] = 0.0  # padding must see something, or its softmax is no number
            real[number, :count] = True
        places = np.flatnonzero(real)
        return _Group(
            _tensor(queries.ravel(), device),
            _tensor(slots.ravel(), device),
            torch.from_numpy(hidden[:, None]).to(device, dtype),
            _tensor(places, device),
            _tensor(queries.ravel()[places], device),
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mixed: Tensor) -> None:
        """Fill this group's rows of `mixed` (T, H, D); query is scaled."""
        (heads, dim), kv = query.shape[1:], keys.shape[1]
        requests, _, count, width = self.hidden.shape
        share = heads // kv  # query heads that share a key head join its rows
        q = query.index_select(0, self.queries).view(requests, count, kv, share, dim)
        q = q.permute(0, 2, 3, 1, 4).reshape(requests * kv, share * count, dim)
        k, v = (
            side.index_select(0, self.slots).view(requests, width, kv, dim).transpose(1, 2)
            for side in (keys, values)
        )
        scores = q @ k.reshape(-1, width, dim).transpose(1, 2)
        weights = torch.softmax(scores.view(requests, heads, count, width) + self.hidden, dim=-1)
        out = weights.view(-1, share * count, width) @ v.reshape(-1, width, dim)
        out = out.view(requests, heads, count, dim).transpose(1, 2).reshape(-1, heads, dim)
        mixed.index_copy_(0, self.tokens, out.index_select(0, self.places))


def _alike(views: Sequence[View]) -> Iterator[list[tuple[int, View]]]:
    """Views of similar size together, each with the index of its first token."""
    starts = np.cumsum([0, *(len(view.visible) for view in views)])
    ordered = sorted(zip(starts.tolist(), views, strict=False), key=lambda item: len(item[1].slots))
    group: list[tuple[int, View]] = []
    for item in ordered:
        if group and len(item[1].slots) > 2 * len(group[0][1].slots) + 32:
            yield group
            group = []
        group.append(item)
    yield group


class ModulePass:
    """Through the modules of transformers, under one mask over all that the pass sees."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._cache = _SlotCache(module.config.num_hidden_layers)

    def logits(self, batch: Batch) -> Tensor:
        seen = np.unique(np.concatenate([view.slots for view in batch.views]))
        visible = np.zeros((len(batch.ids), len(seen)), dtype=bool)
        start = 0
        for view in batch.views:
            rows = slice(start, start + len(view.visible))
            visible[rows, np.searchsorted(seen, view.slots)] = view.visible
            start = rows.stop
        new, device = _tensor(batch.slots, self._device), self._device
        self._cache.prepare(new, _tensor(seen, device))
        logits: Tensor = self._module(
            input_ids=_tensor(batch.ids, device)[None],
            position_ids=_tensor(batch.positions, device)[None],
            attention_mask=_tensor(visible, device)[None, None],
            past_key_values=self._cache,
            logits_to_keep=_tensor(batch.wanted, device),
            use_cache=True,
        ).logits[0]
        return logits


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
        keys = self._keys[layer_idx] = self._store(self._keys[layer_idx], key_states)
        values = self._values[layer_idx] = self._store(self._values[layer_idx], value_states)
        return self._read(keys), self._read(values)

    def _store(self, store: Tensor | None, new: Tensor) -> Tensor:
        rows = new[0].transpose(0, 1)
        return _write(rows[:0] if store is None else store, self._new, rows, self._size)

    def _read(self, store: Tensor) -> Tensor:
        return store.index_select(0, self._seen).transpose(0, 1)[None]


def _write(store: Tensor, slots: Tensor, rows: Tensor, size: int) -> Tensor:
    """`store` (slots, heads, D) with `rows` written; made longer where `size` asks for it."""
    if size > len(store):
        longer = store.new_zeros(max(2 * len(store), size, 256), *store.shape[1:])
        longer[: len(store)] = store
        store = longer
    return store.index_copy_(0, slots, rows)


def _tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
