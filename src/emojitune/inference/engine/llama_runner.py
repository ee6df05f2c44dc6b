"""The fast runner: a packed Llama and any number of adapters beside it.

The linears of the base take all rows of a pass at once, whichever model they belong to; then each
adapter adds its delta to its own rows, as in Punica and S-LoRA. Shapes: T tokens, C hidden, H heads
of size D, K heads of keys and values.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emojitune.inference.engine.batch import (
    ForwardBatch,
    Past,
    Slots,
    hidden_state_layers,
    to_tensor,
    write_slots,
)
from emojitune.inference.engine.cache_attention import AttentionGroup, group_by_size
from emojitune.inference.engine.slices import Slices
from emojitune.models.linear import PackedLinear
from emojitune.models.llama import apply_rotary, rms_norm
from emojitune.models.packed_llama import LlamaAdapter, PackedLayer, PackedLlama

# Rows are padded to few distinct numbers: oneDNN keeps programs with their working memory for each.
# The fewer rows, the more a row of padding costs, and the smaller a program is.
_FEW, _SMALL_MULTIPLE, _MANY, _MULTIPLE = 4, 4, 64, 16

# More tokens in a pass make it hardly more efficient.
_CHUNK_TOKENS, _CHUNK_TOKENS_ON_GPU = 256, 2048

_Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, query (T, H, D), key and value (T, K, D)) to (T, H × D)."""

_Adapters = Sequence[tuple[LlamaAdapter, slice]]


class LlamaRunner:
    """Runs a Llama through fused linears; attention goes request by request, so that none pays for
    the tokens of another. A slice is one layer."""

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

    @property
    def chunk_tokens(self) -> int:
        return _CHUNK_TOKENS_ON_GPU if self._device.type == "cuda" else _CHUNK_TOKENS

    def make_adapter(self, state: Mapping[str, Tensor], scale: float) -> LlamaAdapter:
        return LlamaAdapter(self.llama, state, scale)

    def forward(self, batch: ForwardBatch[LlamaAdapter]) -> Slices[tuple[Tensor, Tensor]]:
        size = 1 + max(int(mask.slots.max()) for mask in batch.masks)
        new = to_tensor(batch.slots, self._device)
        groups = [
            AttentionGroup.of(members, self._device, self.llama.embedding.dtype)
            for members in group_by_size(batch.masks)
        ]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            # New keys and values first: tokens of one pass attend to each other through the slots.
            self._keys[layer] = write_slots(self._keys[layer], new, key[:rows], size)
            self._values[layer] = write_slots(self._values[layer], new, value[:rows], size)
            out = torch.empty_like(query)
            out[rows:] = 0.0
            query = query * self.llama.head_dim**-0.5
            for group in groups:
                group.attend(query, self._keys[layer], self._values[layer], out)
            return out.view(len(out), -1)

        rows, count = len(batch.ids), len(batch.logit_indices)
        padding, logit_padding = _padding(rows), _padding(count)
        ids, positions, logit_indices, hidden_indices = (
            to_tensor(array, self._device)
            for array in (
                np.pad(batch.ids, (0, padding)),
                np.pad(batch.positions, (0, padding)),
                np.pad(batch.logit_indices, (0, logit_padding)),
                batch.hidden_indices,
            )
        )
        taken_after = hidden_state_layers(len(self.llama.layers))
        hidden = torch.zeros((), device=self._device)
        adapters = _padded(batch.adapters, rows, padding)
        for number, x in enumerate(self._layers(ids, positions, attend, adapters), start=1):
            if number in taken_after:
                hidden = hidden + x[hidden_indices].float()
            if batch.hidden_only and number == max(taken_after):
                return x.new_empty(0, self.vocabulary_size), hidden
            yield
        return self.llama.lm_head(self._normalized(x[logit_indices]))[:count], hidden

    @torch.inference_mode()
    def compact(self, slots: Slots) -> None:
        kept = to_tensor(slots, self._device)
        self._keys = [side.index_select(0, kept) for side in self._keys]
        self._values = [side.index_select(0, kept) for side in self._values]

    @torch.inference_mode()
    def hidden_states(
        self, ids: Tensor, past: Past, adapter: LlamaAdapter | None
    ) -> Slices[tuple[Tensor, Past]]:
        rows, count = ids.shape
        before = 0 if past is None else past[0][0].shape[2]
        positions = torch.arange(before, before + count, device=self._device).repeat(rows)
        # A token sees the ones before it, itself and all of the past.
        visible = torch.ones(count, before + count, dtype=torch.bool, device=self._device)
        visible = visible.tril(before)
        present: list[tuple[Tensor, Tensor]] = []

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            q, k, v = (
                side.view(rows, count, *side.shape[1:]).transpose(1, 2)
                for side in (query, key, value)
            )
            if past is not None:
                k, v = (torch.cat(pair, dim=2) for pair in zip(past[layer], (k, v), strict=True))
            present.append((k, v))
            out = functional.scaled_dot_product_attention(
                q, k, v, attn_mask=visible, enable_gqa=True
            )
            return out.transpose(1, 2).reshape(len(query), -1)

        adapters = [] if adapter is None else [(adapter, slice(None))]
        ids = ids.to(self._device).flatten()
        for x in self._layers(ids, positions, attend, adapters):
            hidden = x
            yield
        return self._normalized(hidden).view(rows, count, -1), present

    def _layers(
        self, ids: Tensor, positions: Tensor, attend: _Attend, adapters: _Adapters
    ) -> Iterator[Tensor]:
        """Hidden states (T, C) after each layer, for ids and positions (T,)."""
        llama = self.llama
        cos, sin = llama.rotary(positions)
        x = functional.embedding(ids, llama.embedding)
        for number, layer in enumerate(llama.layers):
            linear = _AdaptedLinears(layer, number, adapters)
            normed, _ = rms_norm(x, layer.input_norm, llama.eps)
            qkv = linear(0, normed)
            apply_rotary(qkv[:, : llama.rotary_columns], cos, sin)
            x = x + linear(1, attend(number, *llama.split_qkv(qkv)))
            normed, _ = rms_norm(x, layer.mlp_norm, llama.eps)
            gate, up = linear(2, normed).chunk(2, dim=1)
            x = x + linear(3, functional.silu(gate) * up)
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
    """The slices, the last of which takes in the padding after all rows."""
    if not adapters or adapters[-1][1].stop != rows:
        return adapters
    *others, (last, last_rows) = adapters
    return [*others, (last, slice(last_rows.start, rows + padding))]


class _AdaptedLinears:
    """A layer's linears, by index in `FUSED_LINEARS`, with the deltas of all adapters added."""

    def __init__(self, layer: PackedLayer[PackedLinear], number: int, adapters: _Adapters) -> None:
        self._layer = layer
        self._deltas = [(adapter.layers[number], rows) for adapter, rows in adapters]

    def __call__(self, index: int, x: Tensor) -> Tensor:
        """Rows (T, in) to (T, out)."""
        out = self._layer.linears[index](x)
        for deltas, rows in self._deltas:
            deltas[index].add_to(out[rows], x[rows])
        return out
