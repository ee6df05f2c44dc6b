"""The runner of every other model: through the modules of transformers.

Knows no adapters: a tuned model of this kind has weights of its own, with its adapter merged.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from emojitune.inference.engine.batch import (
    ForwardBatch,
    Past,
    Slots,
    hidden_state_layers,
    to_tensor,
    write_slots,
)
from emojitune.inference.engine.slices import Slices

# Fewer than a Llama's: others cannot come between the layers.
_CHUNK_TOKENS = 128


class HFRunner:
    """Runs a model through the modules of transformers, under one mask over a pass's slots. A pass
    is a single slice."""

    def __init__(self, module: Any, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._cache = _SlotCache(module.config.num_hidden_layers)

    @property
    def vocabulary_size(self) -> int:
        size: int = len(self._module.get_input_embeddings().weight)
        return size

    @property
    def hidden_size(self) -> int:
        size: int = self._module.get_input_embeddings().weight.shape[1]
        return size

    @property
    def bytes(self) -> int:
        weights: int = sum(parameter.nbytes for parameter in self._module.parameters())
        return weights + self._cache.bytes

    @property
    def chunk_tokens(self) -> int:
        return _CHUNK_TOKENS

    def make_adapter(self, state: Mapping[str, Tensor], scale: float) -> NoReturn:
        raise NotImplementedError("adapters are merged into the modules before they run")

    def forward(self, batch: ForwardBatch[Any]) -> Slices[tuple[Tensor, Tensor]]:
        yield
        # One row of tokens for the modules, so one mask (T, seen) over the slots of all requests;
        # tokens of different requests never see each other.
        seen = np.unique(np.concatenate([mask.slots for mask in batch.masks]))
        visible = np.zeros((len(batch.ids), len(seen)), dtype=bool)
        start = 0
        for mask in batch.masks:
            rows = slice(start, start + len(mask.visible))
            visible[rows, np.searchsorted(seen, mask.slots)] = mask.visible
            start = rows.stop
        new, device = to_tensor(batch.slots, self._device), self._device
        self._cache.prepare(new, to_tensor(seen, device))
        out = self._module(
            input_ids=to_tensor(batch.ids, device)[None],
            position_ids=to_tensor(batch.positions, device)[None],
            attention_mask=to_tensor(visible, device)[None, None],
            past_key_values=self._cache,
            logits_to_keep=to_tensor(batch.logit_indices, device),
            use_cache=True,
            output_hidden_states=len(batch.hidden_indices) > 0,
        )
        logits: Tensor = out.logits[0]
        if not len(batch.hidden_indices):
            return logits, logits[:0]
        # The first are the embeddings.
        states = to_tensor(batch.hidden_indices, device)
        layers = hidden_state_layers(self._module.config.num_hidden_layers)
        hidden = [out.hidden_states[layer][0, states].float() for layer in layers]
        return logits, torch.stack(hidden).sum(0)

    @torch.inference_mode()
    def compact(self, slots: Slots) -> None:
        self._cache.compact(to_tensor(slots, self._device))

    @torch.inference_mode()
    def hidden_states(self, ids: Tensor, past: Past, adapter: Any) -> Slices[tuple[Tensor, Past]]:
        yield
        # The body without the head: no next token is needed.
        out = self._module.base_model(
            input_ids=ids.to(self._device), past_key_values=past, use_cache=True
        )
        return out.last_hidden_state, out.past_key_values


class _SlotCache(Cache):  # type: ignore[misc]
    """Keys and values by slot, (slots, heads, D) for each layer, each of which calls `update`."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    @property
    def bytes(self) -> int:
        stores = (*self._keys, *self._values)
        return sum(store.nbytes for store in stores if store is not None)

    def prepare(self, new: Tensor, seen: Tensor) -> None:
        """Set the slots that the next pass writes, (T,), and those it reads, (seen,), in order."""
        self._new = new
        self._seen = seen
        self._size = int(seen[-1]) + 1

    def compact(self, slots: Tensor) -> None:
        """Keep these slots, which become the first ones; give the memory of the others back."""
        for stores in (self._keys, self._values):
            stores[:] = [
                None if store is None else store.index_select(0, slots) for store in stores
            ]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return len(self._seen)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write (1, heads, T, D) into the new slots; return the seen ones, (1, heads, seen, D)."""
        keys = self._keys[layer_idx] = self._store(self._keys[layer_idx], key_states)
        values = self._values[layer_idx] = self._store(self._values[layer_idx], value_states)
        return self._read(keys), self._read(values)

    def _store(self, store: Tensor | None, new: Tensor) -> Tensor:
        rows = new[0].transpose(0, 1)
        return write_slots(rows[:0] if store is None else store, self._new, rows, self._size)

    def _read(self, store: Tensor) -> Tensor:
        return store.index_select(0, self._seen).transpose(0, 1)[None]
