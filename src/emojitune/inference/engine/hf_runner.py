"""The forward pass of any other model: through the modules of transformers.

Knows no adapters: a tuned model of this kind has its own weights, with its adapter merged.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Cache

from emojitune.inference.engine.batch import Batch, Past, state_layers, to_tensor, write
from emojitune.models.packed_llama import LlamaAdapter


class ModulePass:
    """Through the modules of transformers, under one mask over all that the pass sees."""

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

    def compute(self, batch: Batch) -> tuple[Tensor, Tensor]:
        seen = np.unique(np.concatenate([view.slots for view in batch.views]))
        visible = np.zeros((len(batch.ids), len(seen)), dtype=bool)
        start = 0
        for view in batch.views:
            rows = slice(start, start + len(view.visible))
            visible[rows, np.searchsorted(seen, view.slots)] = view.visible
            start = rows.stop
        new, device = to_tensor(batch.slots, self._device), self._device
        self._cache.prepare(new, to_tensor(seen, device))
        out = self._module(
            input_ids=to_tensor(batch.ids, device)[None],
            position_ids=to_tensor(batch.positions, device)[None],
            attention_mask=to_tensor(visible, device)[None, None],
            past_key_values=self._cache,
            logits_to_keep=to_tensor(batch.wanted, device),
            use_cache=True,
            output_hidden_states=len(batch.states) > 0,
        )
        logits: Tensor = out.logits[0]
        if not len(batch.states):
            return logits, logits[:0]
        # The first are the embeddings.
        states = to_tensor(batch.states, device)
        layers = state_layers(self._module.config.num_hidden_layers)
        between = [out.hidden_states[layer][0, states].float() for layer in layers]
        return logits, torch.stack(between).sum(0)

    @torch.inference_mode()
    def keep(self, slots: int) -> None:
        self._cache.keep(slots)

    @torch.inference_mode()
    def states(self, ids: Tensor, past: Past, adapter: LlamaAdapter | None) -> tuple[Tensor, Past]:
        # The body, without the head: nobody asks for the next token.
        out = self._module.base_model(
            input_ids=ids.to(self._device), past_key_values=past, use_cache=True
        )
        return out.last_hidden_state, out.past_key_values


class _SlotCache(Cache):  # type: ignore[misc]
    """Keys and values by slot; transformers calls `update` once a layer."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    @property
    def bytes(self) -> int:
        stores = (*self._keys, *self._values)
        return sum(store.nbytes for store in stores if store is not None)

    def prepare(self, new: Tensor, seen: Tensor) -> None:
        """Say which slots the next pass writes, and which it reads, in order."""
        self._new = new
        self._seen = seen
        self._size = int(seen[-1]) + 1

    def keep(self, slots: int) -> None:
        """Let go of the slots from this number on."""
        for stores in (self._keys, self._values):
            stores[:] = [None if store is None else store[:slots].clone() for store in stores]

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
        return write(rows[:0] if store is None else store, self._new, rows, self._size)

    def _read(self, store: Tensor) -> Tensor:
        return store.index_select(0, self._seen).transpose(0, 1)[None]
