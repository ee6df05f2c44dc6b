"""The border between cache and model: what a forward pass takes, and what a runner must do.

A runner computes new tokens, which lie in slots of the engine's cache and attend to other slots of
it, and returns logits and hidden states at the requested tokens. It owns keys and values; which
slots are free is the cache's business. Adapters are opaque here: only a runner looks inside one.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emojitune.inference.engine.slices import Slices

Slots = NDArray[np.int64]

Adapter = TypeVar("Adapter", bound=Hashable)
"""An update to the base model, in a form of its runner's own; equal only to itself."""

# Sixteenths of the layers after which hidden states are taken: earlier ones do not yet hold the
# features that decide a reply, and the last ones hold the next token more than those.
_DEPTHS = (12, 13, 14)


def hidden_state_layers(layers: int) -> frozenset[int]:
    """After how many of a model's layers hidden states are taken; the sum of them is reported."""
    return frozenset(max(1, layers * depth // 16) for depth in _DEPTHS)


@dataclass(frozen=True, slots=True)
class AttentionMask:
    """The slots (K,) that the Q new tokens of one request may attend to, where `visible` (Q, K)."""

    slots: Slots
    visible: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ForwardBatch(Generic[Adapter]):
    """T new tokens, those of a request adjacent, and an attention mask for each request.

    Attributes:
        ids: Token ids, (T,).
        positions: Positions in their sequences, (T,).
        slots: Where their keys and values are written, (T,).
        masks: One per request, in the order of the tokens.
        logit_indices: Indices of the tokens whose logits are requested.
        adapters: Which tokens are computed with an adapter; the others see the base alone.
        hidden_indices: Indices of the tokens whose hidden states are requested.
        hidden_only: Whether layers after those of the hidden states may be left out.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: Slots
    masks: Sequence[AttentionMask]
    logit_indices: NDArray[np.int64]
    adapters: Sequence[tuple[Adapter, slice]] = ()
    hidden_indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    hidden_only: bool = False


Past = Any
"""Keys and values of earlier tokens, in a form of the runner's own; None at the beginning."""


class ModelRunner(Protocol[Adapter]):
    """One base model, ready to compute."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def bytes(self) -> int:
        """Memory of its weights, keys and values."""
        ...

    @property
    def chunk_tokens(self) -> int:
        """Tokens that a pass should have at most, so that others need not wait long for it."""
        ...

    def make_adapter(self, state: Mapping[str, Tensor], scale: float) -> Adapter:
        """An adapter's tensors, A (R, in) and B (out, R) by layer, in the form of this runner."""
        ...

    def forward(self, batch: ForwardBatch[Adapter]) -> Slices[tuple[Tensor, Tensor]]:
        """Logits (logit_indices, V) and hidden states (hidden_indices, C); fills the slots."""
        ...

    def compact(self, slots: Slots) -> None:
        """Keep these slots, which become the first ones; give the memory of the others back."""
        ...

    def hidden_states(
        self, ids: Tensor, past: Past, adapter: Adapter | None
    ) -> Slices[tuple[Tensor, Past]]:
        """The last hidden states (R, Q, C) of rows of ids (R, Q), outside of all slots.

        Args:
            past: Returned by an earlier call on the same rows, which then are of equal length.
        """
        ...


def write_slots(store: Tensor, slots: Tensor, rows: Tensor, size: int) -> Tensor:
    """`store` (slots, heads, D) with `rows` written; extended to at least `size` slots."""
    if size > len(store):
        longer = store.new_zeros(max(2 * len(store), size, 256), *store.shape[1:])
        longer[: len(store)] = store
        store = longer
    return store.index_copy_(0, slots, rows)


def to_tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on `device`; shared, not copied, where it can be."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
