"""What a forward pass is given and what it must be able to do.

A pass computes new tokens, which lie in slots of the engine's cache and see other slots of it, and
returns logits and hidden states where they are wanted. It owns keys and values; which slots are
free is the engine's matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emojitune.models.packed_llama import LlamaAdapter

Slots = NDArray[np.int64]

# Sixteenths of the layers behind which hidden states are taken: earlier ones do not know yet what
# decides a reply, and the last ones hold the next token more than that.
_DEPTHS = (12, 13, 14)


def state_layers(layers: int) -> frozenset[int]:
    """Behind how many of a model's layers hidden states are taken; their sum is told."""
    return frozenset(max(1, layers * depth // 16) for depth in _DEPTHS)


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
        states: Indices of the tokens whose hidden states are wanted.
        adapters: Which tokens are computed with an adapter; the base computes the others.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: Slots
    views: Sequence[View]
    wanted: NDArray[np.int64]
    adapters: Sequence[tuple[LlamaAdapter, slice]] = ()
    states: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


Past = Any
"""Keys and values of what came before, in a form of the pass's own; None at the beginning."""


class ForwardPass(Protocol):
    """One base model, ready to compute."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def bytes(self) -> int:
        """What it takes in memory: weights, keys and values."""
        ...

    def compute(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (wanted, V) and hidden states (states, C); fills the batch's slots."""
        ...

    def keep(self, slots: int) -> None:
        """Forget the slots from this number on, and give their memory back."""
        ...

    def states(self, ids: Tensor, past: Past, adapter: LlamaAdapter | None) -> tuple[Tensor, Past]:
        """The last hidden states (R, Q, C) of rows of ids (R, Q), apart from all slots.

        Args:
            past: What an earlier call returned, for rows that go on; they are of one length then.
        """
        ...


def write(store: Tensor, slots: Tensor, rows: Tensor, size: int) -> Tensor:
    """`store` (slots, heads, D) with `rows` written; made longer where `size` asks for it."""
    if size > len(store):
        longer = store.new_zeros(max(2 * len(store), size, 256), *store.shape[1:])
        longer[: len(store)] = store
        store = longer
    return store.index_copy_(0, slots, rows)


def to_tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array on `device`; shared, not copied, where it can be."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
