"""Attention of new tokens to slots of the cache, requests of similar size together.

Nobody pays for the others' tokens, and the products stay few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emojitune.inference.engine.batch import View, to_tensor

# Scores of a layer, of all heads, beyond which they are not kept side by side: torch's kernel that
# goes through them in blocks is slower for few, and takes no memory for many.
_MANY_SCORES = 2**25


@dataclass(frozen=True, slots=True)
class Group:
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
    ) -> "Group":
        """The group of views, each with the index of its first token."""
        most = _rounded(max(len(view.visible) for _, view in members), 4)
        widest = _rounded(max(len(view.slots) for _, view in members), 16)
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
        return Group(
            to_tensor(queries.ravel(), device),
            to_tensor(slots.ravel(), device),
            torch.from_numpy(hidden[:, None]).to(device, dtype),
            to_tensor(places, device),
            to_tensor(queries.ravel()[places], device),
        )

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mixed: Tensor) -> None:
        """Fill this group's rows of `mixed` (T, H, D); query is scaled."""
        (heads, dim), kv = query.shape[1:], keys.shape[1]
        requests, _, count, width = self.hidden.shape
        q = query.index_select(0, self.queries).view(requests, count, heads, dim)
        k, v = (
            side.index_select(0, self.slots).view(requests, width, kv, dim).transpose(1, 2)
            for side in (keys, values)
        )
        many = requests * heads * count * width > _MANY_SCORES
        out = (self._in_blocks if many else self._at_once)(q, k, v)
        out = out.transpose(1, 2).reshape(-1, heads, dim)
        mixed.index_copy_(0, self.tokens, out.index_select(0, self.places))

    def _at_once(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query (R, Q, H, D), key and value (R, K heads, K, D), to (R, H, Q, D)."""
        (requests, count, heads, dim), (_, kv, width, _) = query.shape, key.shape
        share = heads // kv  # query heads that share a key head join its rows
        q = query.view(requests, count, kv, share, dim).permute(0, 2, 3, 1, 4)
        q = q.reshape(requests * kv, share * count, dim)
        scores = q @ key.reshape(-1, width, dim).transpose(1, 2)
        scores = scores.view(requests, heads, count, width)
        # In float32, since torch's softmax in bf16 is slower, and coarser.
        weights = torch.softmax(scores.add_(self.hidden), dim=-1, dtype=torch.float32)
        weights = weights.to(query.dtype)
        out = weights.view(-1, share * count, width) @ value.reshape(-1, width, dim)
        return out.view(requests, heads, count, dim)

    def _in_blocks(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same, without weights of all queries at a time."""
        return functional.scaled_dot_product_attention(
            query.transpose(1, 2), key, value, self.hidden, scale=1.0, enable_gqa=True
        )


def alike(views: Sequence[View]) -> Iterator[list[tuple[int, View]]]:
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


def _rounded(count: int, multiple: int) -> int:
    """Few sizes: oneDNN keeps a program for each that it has seen."""
    return count if count <= multiple else -(-count // multiple) * multiple
