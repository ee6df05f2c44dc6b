"""Attention of new tokens to slots of the cache, requests of similar size together.

The bias of a group of two requests, q new tokens with the slots a to i that they see:

        a   b   c   d   e               f   g   h   i   -
    q0  0   0   0  -∞  -∞           q3  0   0   0  -∞  -∞
    q1  0   0   0   0  -∞           q4  0   0   0   0  -∞
    q2  0   0   0   0   0           -   0   0   0   0   0      -: padding

Requests attend to slots of their own only: in one product over the entire batch each would pay for
the slots of all others; in one product each there would be many small ones. Groups of similar size
waste little on padding, and are few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emojitune.inference.engine.batch import AttentionMask, to_tensor

# Scores of a layer, over all heads, above which they are computed in blocks, as in FlashAttention
# (Dao et al., 2022, arXiv:2205.14135): several times as fast, since a block stays in the caches of
# the processor, and without memory for all scores. Few scores take as long either way.
_MANY_SCORES = 2**18


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """R requests, padded to Q new tokens and K seen slots each.

    Attributes:
        queries: Token indices, (R × Q,); 0 for padding.
        slots: Seen slots, (R × K,); 0 for padding.
        bias: Added to the scores, 0 or -inf, (R, 1, Q, K).
        real: Indices into the R × Q of those that are no padding.
        tokens: Token indices of the real ones.
    """

    queries: Tensor
    slots: Tensor
    bias: Tensor
    real: Tensor
    tokens: Tensor

    @staticmethod
    def of(
        members: Sequence[tuple[int, AttentionMask]], device: torch.device, dtype: torch.dtype
    ) -> "AttentionGroup":
        """The group of these masks, each with the index of its first token."""
        rows = _rounded(max(len(mask.visible) for _, mask in members), 4)
        columns = _rounded(max(len(mask.slots) for _, mask in members), 16)
        queries = np.zeros((len(members), rows), dtype=np.int64)
        slots = np.zeros((len(members), columns), dtype=np.int64)
        bias = np.full((len(members), rows, columns), -np.inf, dtype=np.float32)
        real = np.zeros((len(members), rows), dtype=bool)
        for number, (start, mask) in enumerate(members):
            count, width = mask.visible.shape
            queries[number, :count] = np.arange(start, start + count)
            slots[number, :width] = mask.slots
            bias[number, :count, :width][mask.visible] = 0.0
            bias[number, count:] = 0.0  # a padded row must see something, or its softmax is NaN
            real[number, :count] = True
        places = np.flatnonzero(real)
        return AttentionGroup(
            to_tensor(queries.ravel(), device),
            to_tensor(slots.ravel(), device),
            torch.from_numpy(bias[:, None]).to(device, dtype),
            to_tensor(places, device),
            to_tensor(queries.ravel()[places], device),
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, out: Tensor) -> None:
        """Fill this group's rows of `out`.

        Args:
            query: Scaled, (T, H, D).
            keys: All slots', (slots, key heads, D), and `values` alike.
            out: Of all tokens, (T, H, D).
        """
        (heads, dim), kv = query.shape[1:], keys.shape[1]
        requests, _, count, width = self.bias.shape
        q = query.index_select(0, self.queries).view(requests, count, heads, dim)
        k, v = (
            side.index_select(0, self.slots).view(requests, width, kv, dim).transpose(1, 2)
            for side in (keys, values)
        )
        many = requests * heads * count * width > _MANY_SCORES
        mixed = (self._in_blocks if many else self._at_once)(q, k, v)
        mixed = mixed.transpose(1, 2).reshape(-1, heads, dim)
        # Rows of padding are dropped here; each real row belongs to this group alone.
        out.index_copy_(0, self.tokens, mixed.index_select(0, self.real))

    def _at_once(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (R, Q, H, D), key and value (R, key heads, K, D), to (R, H, Q, D)."""
        (requests, count, heads, dim), (_, kv, width, _) = query.shape, key.shape
        # Grouped-query attention: the query heads that share a key head become rows of one product,
        # so that no key is copied for each of them.
        share = heads // kv
        q = query.view(requests, count, kv, share, dim).permute(0, 2, 3, 1, 4)
        q = q.reshape(requests * kv, share * count, dim)
        scores = q @ key.reshape(-1, width, dim).transpose(1, 2)
        scores = scores.view(requests, heads, count, width)
        # In float32, since torch's softmax in bf16 is slower, and coarser.
        weights = torch.softmax(scores.add_(self.bias), dim=-1, dtype=torch.float32)
        weights = weights.to(query.dtype)
        mixed = weights.view(-1, share * count, width) @ value.reshape(-1, width, dim)
        return mixed.view(requests, heads, count, dim)

    def _in_blocks(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The result of `_at_once` without the weights of all queries in memory at a time."""
        return functional.scaled_dot_product_attention(
            query.transpose(1, 2), key, value, self.bias, scale=1.0, enable_gqa=True
        )


def group_by_size(masks: Sequence[AttentionMask]) -> Iterator[list[tuple[int, AttentionMask]]]:
    """Masks with similar numbers of slots together, each with the index of its first token."""
    starts = np.cumsum([0, *(len(mask.visible) for mask in masks)])
    ordered = sorted(zip(starts.tolist(), masks, strict=False), key=lambda item: len(item[1].slots))
    group: list[tuple[int, AttentionMask]] = []
    for item in ordered:
        if group and len(item[1].slots) > 2 * len(group[0][1].slots) + 32:
            yield group
            group = []
        group.append(item)
    yield group


def _rounded(count: int, multiple: int) -> int:
    """The next multiple: few sizes, because oneDNN keeps a program for each that it has seen."""
    return count if count <= multiple else -(-count // multiple) * multiple
