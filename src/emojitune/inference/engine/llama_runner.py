"""The fast forward pass, of a packed Llama and any number of adapters beside it.

Base products are of all rows of a pass, whichever model they belong to; then each adapter adds
its update to its own rows.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emojitune.inference.engine.batch import Batch, Past, state_layers, to_tensor, write
from emojitune.inference.engine.cache_attention import Group, alike
from emojitune.models.linear import PackedLinear
from emojitune.models.llama import apply_rotary, rms_norm
from emojitune.models.packed_llama import LlamaAdapter, PackedLayer, PackedLlama

# Rows come in few numbers: for each, oneDNN keeps programs with their working memory. The fewer
# rows, the more one of padding costs, and the smaller a program is.
_FEW, _SMALL_MULTIPLE, _MANY, _MULTIPLE = 4, 4, 64, 16

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query (T, H, D), key and value (T, K, D)) to (T, H × D)."""

_Adapters = Sequence[tuple[LlamaAdapter, slice]]


class LlamaPass:
    """Through fused linears; attention by request, so that nobody pays for the others' tokens."""

    def __init__(self, llama: PackedLlama[PackedLinear]) -> None:
        self.llama = llama
        self._device = llama.embedding.device
        self._keys: list[Tensor] = [self._empty() for _ in llama.layers]
        self._values: list[Tensor] = [self._empty() for _ in llama.layers]

    @property
    def vocabulary_size(self) -> int:
        return len(self.llama.embedding)

    @property
    def hidden_size(self) -> int:
        return self.llama.embedding.shape[1]

    @property
    def bytes(self) -> int:
        return self.llama.bytes + sum(side.nbytes for side in (*self._keys, *self._values))

    def compute(self, batch: Batch) -> tuple[Tensor, Tensor]:
        size = 1 + max(int(view.slots.max()) for view in batch.views)
        new = to_tensor(batch.slots, self._device)
        groups = [
            Group.of(members, self._device, self.llama.embedding.dtype)
            for members in alike(batch.views)
        ]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            self._keys[layer] = write(self._keys[layer], new, key[:rows], size)
            self._values[layer] = write(self._values[layer], new, value[:rows], size)
            mixed = torch.empty_like(query)
            mixed[rows:] = 0.0
            query = query * self.llama.head_dim**-0.5
            for group in groups:
                group.attend(query, self._keys[layer], self._values[layer], mixed)
            return mixed.view(len(mixed), -1)

        rows, count = len(batch.ids), len(batch.wanted)
        padding, more = _padding(rows), _padding(count)
        ids, positions, wanted, states = (
            to_tensor(array, self._device)
            for array in (
                np.pad(batch.ids, (0, padding)),
                np.pad(batch.positions, (0, padding)),
                np.pad(batch.wanted, (0, more)),
                batch.states,
            )
        )
        taken_behind = state_layers(len(self.llama.layers))
        between = torch.zeros((), device=self._device)
        adapters = _padded(batch.adapters, rows, padding)
        for number, x in enumerate(self._layers(ids, positions, attend, adapters), start=1):
            if number in taken_behind:
                between = between + x[states].float()
            if not count and number == max(taken_behind):  # nobody asks what comes next, or later
                return x.new_empty(0, self.vocabulary_size), between
        return self.llama.lm_head(self._normalized(x[wanted]))[:count], between

    @torch.inference_mode()
    def keep(self, slots: int) -> None:
        self._keys = [side[:slots].clone() for side in self._keys]
        self._values = [side[:slots].clone() for side in self._values]

    @torch.inference_mode()
    def states(self, ids: Tensor, past: Past, adapter: LlamaAdapter | None) -> tuple[Tensor, Past]:
        rows, count = ids.shape
        before = 0 if past is None else past[0][0].shape[2]
        positions = torch.arange(before, before + count, device=self._device).repeat(rows)
        # What lies behind a token is hidden from it: what comes before is not.
        visible = torch.ones(count, before + count, dtype=torch.bool, device=self._device)
        visible = visible.tril(before)
        seen: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (
                side.view(rows, count, *side.shape[1:]).transpose(1, 2)
                for side in (query, key, value)
            )
            if past is not None:
                k, v = (torch.cat(pair, dim=2) for pair in zip(past[layer], (k, v), strict=True))
            seen.append((k, v))
            mixed = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=visible, enable_gqa=True
            )
            return mixed.transpose(1, 2).reshape(len(query), -1)

        adapters = [] if adapter is None else [(adapter, slice(None))]
        ids = ids.to(self._device).flatten()
        for x in self._layers(ids, positions, attend, adapters):
            hidden = x
        return self._normalized(hidden).view(rows, count, -1), seen

    def _layers(
        self, ids: Tensor, positions: Tensor, attend: _Attend, adapters: _Adapters
    ) -> Iterator[Tensor]:
        """Hidden states (T, C) behind each layer, for ids and positions (T,)."""
        llama = self.llama
        cos, sin = llama.rotary(positions)
        x = functional.embedding(ids, llama.embedding)
        for number, layer in enumerate(llama.layers):
            products = _Products(layer, number, adapters)
            normed, _ = rms_norm(x, layer.input_norm, llama.eps)
            qkv = products(0, normed)
            apply_rotary(qkv[:, : llama.rotary_columns], cos, sin)
            x = x + products(1, attend(number, *llama.split_qkv(qkv)))
            normed, _ = rms_norm(x, layer.mlp_norm, llama.eps)
            gate, up = products(2, normed).chunk(2, dim=1)
            x = x + products(3, functional.silu(gate) * up)
            yield x

    def _normalized(self, hidden: Tensor) -> Tensor:
        return rms_norm(hidden, self.llama.final_norm, self.llama.eps)[0]

    def _empty(self) -> Tensor:
        shape = (0, self.llama.kv_heads, self.llama.head_dim)
        return torch.empty(shape, dtype=self.llama.embedding.dtype, device=self._device)


def _padding(rows: int) -> int:
    if rows <= _FEW:
        return 0
    return -rows % (_SMALL_MULTIPLE if rows <= _MANY else _MULTIPLE)


def _padded(adapters: _Adapters, rows: int, padding: int) -> _Adapters:
    """The padding behind all rows goes with the last of them."""
    if not adapters or adapters[-1][1].stop != rows:
        return adapters
    *others, (last, own) = adapters
    return [*others, (last, slice(own.start, rows + padding))]


class _Products:
    """The products of a layer, by their place in `FUSED_LINEARS`, with all updates of a pass."""

    def __init__(self, layer: PackedLayer[PackedLinear], number: int, adapters: _Adapters) -> None:
        self._layer = layer
        self._updates = [(adapter.layers[number], rows) for adapter, rows in adapters]

    def __call__(self, which: int, x: Tensor) -> Tensor:
        out = self._layer.linears[which](x)
        for updates, rows in self._updates:
            updates[which].add_to(out[rows], x[rows])
        return out
