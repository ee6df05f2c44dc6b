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
        causal: Added to the scores of the prefix: 0 where a key is seen, -inf where not, (P, P).
        hidden: The same for an own part's queries against P + L keys, (L, P + L).
    """

    prefix: int
    examples: int
    longest: int
    gather: Tensor
    scatter: Tensor
    causal: Tensor
    hidden: Tensor

    def to(self, device: torch.device) -> "RowLayout":
        """The same layout on `device`."""
        return RowLayout(
            self.prefix,
            self.examples,
            self.longest,
            self.gather.to(device),
            self.scatter.to(device),
            self.causal.to(device),
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
    causal = torch.full((prefix, prefix), float("-inf")).triu(1)
    return RowLayout(
        prefix=prefix,
        examples=len(lengths),
        longest=longest,
        gather=torch.where(filled, start + slots, total).flatten(),
        scatter=filled.flatten().nonzero()[:, 0],
        causal=causal,
        hidden=torch.cat([torch.zeros(longest, prefix), own], dim=1),
    )


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
    rows = [tensor[0].transpose(0, 1) for tensor in (query, key, value)]
    mixed = attend(rows[0], rows[1], rows[2], row_layout, scaling)
    return mixed.view(1, len(mixed), query.shape[1], -1), None


def attend(query: Tensor, key: Tensor, value: Tensor, layout: RowLayout, scaling: float) -> Tensor:
    """query (T, H, D), key and value (T, K, D), H a multiple of K, to (T, H × D)."""
    mixed: Tensor = _Attend.apply(query, key, value, layout, scaling)  # type: ignore[no-untyped-call]
    return mixed


class _Attend(torch.autograd.Function):
    """By hand in both directions: left to autograd, the copies into slots and back alone take
    several times as long, since it makes scatter-adds of them.

    The prefix and the own parts are two blocks of the same shape of work, (K × E, rows, keys):
    for the prefix E is 1; for own parts the prefix's keys stand before each example's own. Query
    heads that share a key head join its rows.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: RowLayout, scaling: float
    ) -> Tensor:
        ctx.layout, ctx.scaling, ctx.heads, kv = layout, scaling, query.shape[1], key.shape[1]
        scaled = query * scaling
        blocks = [_prefix_block(scaled, key, value, layout), _own_block(scaled, key, value, layout)]
        outs = []
        for number, (q, k, v, hidden) in enumerate(blocks):
            scores = q @ k.transpose(1, 2)
            heads = scores.view(len(q) * query.shape[1] // kv, *hidden.shape).add_(hidden)
            weights = torch.softmax(heads, dim=-1).view_as(scores)
            outs.append(_to_rows(weights @ v, kv, query.shape[1]))
            blocks[number] = (q, k, v, weights)
        ctx.save_for_backward(*blocks[0], *blocks[1])
        return torch.cat([outs[0], outs[1].index_select(0, layout.scatter)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout, saved, p = ctx.layout, ctx.saved_tensors, ctx.layout.prefix
        grad = grads[0].view(len(grads[0]), ctx.heads, saved[0].shape[-1])
        kv = len(saved[0])
        before = _block_backward(_from_rows(grad[:p], 1, kv), *saved[:4])
        slots = _spread(grad, layout).view(len(layout.gather), *grad.shape[1:])
        after = _block_backward(_from_rows(slots, layout.examples, kv), *saved[4:])
        own_query = _to_rows(after[0], kv, ctx.heads)
        query = torch.cat(
            [_to_rows(before[0], kv, ctx.heads), own_query.index_select(0, layout.scatter)]
        )
        sides = []
        for of_prefix, of_own in zip(before[1:], after[1:], strict=True):
            # (K × E, P + L, D): the prefix collects from itself and from all examples.
            of_own = of_own.view(kv, layout.examples, p + layout.longest, of_own.shape[-1])
            shared = of_prefix + of_own[:, :, :p].sum(1)
            own = of_own[:, :, p:].permute(1, 2, 0, 3).flatten(0, 1)
            sides.append(torch.cat([shared.transpose(0, 1), own.index_select(0, layout.scatter)]))
        return query.view_as(grad).mul_(ctx.scaling), sides[0], sides[1], None, None


_Block = tuple[Tensor, Tensor, Tensor, Tensor]
"""Queries (K × E, rows, D), keys and values (K × E, keys, D), and what is added to the scores of
each query head, later the weights."""


def _prefix_block(query: Tensor, key: Tensor, value: Tensor, layout: RowLayout) -> _Block:
    p, kv = layout.prefix, key.shape[1]
    sides = [side[:p].transpose(0, 1) for side in (key, value)]
    return _from_rows(query[:p], 1, kv), sides[0], sides[1], layout.causal


def _own_block(query: Tensor, key: Tensor, value: Tensor, layout: RowLayout) -> _Block:
    e, n, p = layout.examples, layout.longest, layout.prefix
    kv, dim = key.shape[1:]

    def side(packed: Tensor) -> Tensor:
        own = _spread(packed, layout).view(e, n, kv, dim).permute(2, 0, 1, 3)
        prefix = packed[:p].transpose(0, 1)[:, None].expand(kv, e, p, dim)
        return torch.cat([prefix, own], dim=2).view(kv * e, p + n, dim)

    slots = _spread(query, layout).view(e * n, *query.shape[1:])
    return _from_rows(slots, e, kv), side(key), side(value), layout.hidden


def _block_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values of a block."""
    grad_weights = grad @ v.transpose(1, 2)
    grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    return (
        grad_scores @ k,
        grad_scores.transpose(1, 2) @ q,
        weights.transpose(1, 2) @ grad,
    )


def _from_rows(rows: Tensor, examples: int, kv: int) -> Tensor:
    """(E × L, H, D) to (K × E, H / K × L, D)."""
    (heads, dim), length = rows.shape[1:], len(rows) // examples
    parts = rows.reshape(examples, length, kv, heads // kv, dim).permute(2, 0, 3, 1, 4)
    return parts.reshape(kv * examples, heads // kv * length, dim)


def _to_rows(block: Tensor, kv: int, heads: int) -> Tensor:
    """The reverse of _from_rows, with heads and D as one: (E × L, H × D)."""
    (blocks, rows, dim), share = block.shape, heads // kv
    examples, length = blocks // kv, rows // share
    parts = block.view(kv, examples, share, length, dim).permute(1, 3, 0, 2, 4)
    return parts.reshape(examples * length, heads * dim)


def _spread(packed: Tensor, layout: RowLayout) -> Tensor:
    """Own parts of (T, ...) in padded slots, (E × L, rest)."""
    rows = packed.reshape(len(packed), -1)
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]).index_select(0, layout.gather)


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, lambda **_: None)
