"""Attention over a packed row: every example sees the shared prefix and itself, nothing else.

A dense mask over the row would do the same, and costs the square of its length: in the backward
pass of a CPU that was a fifth of a whole training step. Here the scores are two batches of small
products, own part against prefix and own part against itself, under one softmax.

Registered with transformers as the implementation `shared_prefix`; the layout of the row comes
with each forward call as the keyword `row_layout`. Knows neither tokens nor losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from emojitune.errors import ModelError

NAME = "shared_prefix"


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where the parts of a row of T tokens are.

    Attributes:
        prefix: P, the length of the shared prefix, which comes first.
        examples: E, how many own parts follow it.
        longest: L, the length of the longest own part.
        gather: For each of the E × L slots the row index of its token; T (no token) for padding.
        scatter: For each of the T - P tokens of own parts its slot.
        hidden: Added to the scores of an own part's queries against P + L keys: 0 where the key
            is seen, -inf where not, (L, P + L).
    """

    prefix: int
    examples: int
    longest: int
    gather: Tensor
    scatter: Tensor
    hidden: Tensor

    def to(self, device: torch.device) -> "RowLayout":
        """The same layout on `device`."""
        return RowLayout(
            self.prefix,
            self.examples,
            self.longest,
            self.gather.to(device),
            self.scatter.to(device),
            self.hidden.to(device),
        )


def row_layout(prefix: int, lengths: Sequence[int]) -> RowLayout:
    """The layout of a row: a prefix, then own parts of these lengths."""
    longest, total = max(lengths), prefix + sum(lengths)
    slots = torch.arange(longest)[None, :].expand(len(lengths), -1)
    size = torch.tensor(lengths)[:, None]
    start = prefix + size.cumsum(0) - size
    filled = slots < size
    own = torch.full((longest, longest), float("-inf")).triu(1)
    return RowLayout(
        prefix=prefix,
        examples=len(lengths),
        longest=longest,
        gather=torch.where(filled, start + slots, total).flatten(),
        scatter=filled.flatten().nonzero()[:, 0],
        hidden=torch.cat([torch.zeros(longest, prefix), own], dim=1),
    )


class _Spread(torch.autograd.Function):
    """Rows of a packed tensor into padded slots: (T, ...) to (E × L, ...).

    Each token has one slot, so the way back is a selection too. Autograd alone would take it for
    a sum into overlapping places, several times as slow.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, layout: RowLayout) -> Tensor:
        ctx.layout = layout
        return _spread(packed, layout)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        own = grads[0].index_select(0, ctx.layout.scatter)
        return _behind_zeros(own, ctx.layout.prefix), None


class _Collect(torch.autograd.Function):
    """The reverse of _Spread: (E × L, ...) to the own parts, (T - P, ...)."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, layout: RowLayout) -> Tensor:
        ctx.layout = layout
        return slots.index_select(0, layout.scatter)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _spread(_behind_zeros(grads[0], ctx.layout.prefix), ctx.layout), None


def _spread(packed: Tensor, layout: RowLayout) -> Tensor:
    nothing = packed.new_zeros(1, *packed.shape[1:])
    return torch.cat([packed, nothing]).index_select(0, layout.gather)


def _behind_zeros(own: Tensor, prefix: int) -> Tensor:
    return torch.cat([own.new_zeros(prefix, *own.shape[1:]), own])


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    row_layout: RowLayout,
    scaling: float,
    **others: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T, D), key and value (1, K, T, D), H a multiple of K; returns (1, T, H, D)."""
    if others.get("softcap") is not None or others.get("s_aux") is not None:
        raise ModelError(
            "This base model's attention caps its scores or has sinks, which training here does "
            "not do yet. Use another base model.",
            param="model",
        )
    heads = query.shape[1]
    before = functional.scaled_dot_product_attention(
        query[:, :, : row_layout.prefix],
        key[:, :, : row_layout.prefix],
        value[:, :, : row_layout.prefix],
        is_causal=True,
        scale=scaling,
        enable_gqa=True,
    )
    scaled, keys, values = (t[0].transpose(0, 1) for t in (query * scaling, key, value))
    own = _attend_own_parts(scaled, keys, values, row_layout)
    out = torch.cat([before[0].transpose(0, 1), own.view(own.shape[0], heads, -1)])
    return out[None], None


def _attend_own_parts(query: Tensor, key: Tensor, value: Tensor, layout: RowLayout) -> Tensor:
    """query (T, H, D), key and value (T, K, D) to the outputs of own parts, (T - P, H × D)."""
    (heads, dim), kv = query.shape[1:], key.shape[1]
    group = heads // kv
    p, e, n = layout.prefix, layout.examples, layout.longest

    def slots(packed: Tensor) -> Tensor:  # to (E, L, heads of the tensor, D)
        return _Spread.apply(packed.reshape(packed.shape[0], -1), layout).view(e, n, -1, dim)  # type: ignore[no-any-return, no-untyped-call]

    # One key head serves a group of query heads: the group joins the queries' rows.
    q = slots(query).view(e, n, kv, group, dim).permute(2, 0, 3, 1, 4).reshape(kv * e, -1, dim)
    k, v = (slots(t).permute(2, 0, 1, 3).reshape(kv * e, n, dim) for t in (key, value))
    k_prefix, v_prefix = key[:p].transpose(0, 1), value[:p].transpose(0, 1)  # (K, P, D)

    with_prefix = torch.bmm(q.view(kv, -1, dim), k_prefix.transpose(1, 2)).view(kv * e, -1, p)
    with_own = torch.bmm(q, k.transpose(1, 2))
    scores = torch.cat([with_prefix, with_own], dim=2).view(kv * e, group, n, p + n)
    weights = torch.softmax(scores + layout.hidden.to(scores.dtype), dim=-1)
    weights = weights.view(kv * e, group * n, p + n)
    out = torch.bmm(weights[:, :, p:], v)
    shared = torch.bmm(weights[:, :, :p].reshape(kv, -1, p), v_prefix)
    out = (out + shared.view_as(out)).view(kv, e, group, n, dim)
    out = out.permute(1, 3, 0, 2, 4).reshape(e * n, heads * dim)
    return _Collect.apply(out, layout)  # type: ignore[no-any-return, no-untyped-call]


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda **_: None)
