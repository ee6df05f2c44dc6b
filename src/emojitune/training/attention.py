"""Attention over a packed row: every example sees the shared prefix and itself, nothing else.

A dense mask over the row would do the same, and costs the square of its length: in the backward
pass of a CPU that was a fifth of a whole training step. Here the scores are two batches of small
products, own part against prefix and own part against itself, under one softmax; GPUs have kernels
that make all of it one operation.

The weights of these products are kept for the backward pass, in every layer. Of one long example
they would be most of the memory: its row goes through torch's own attention, which keeps none.

Knows neither tokens nor losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from emojitune.training.config import LONG_EXAMPLE

_MULTIPLE = 4  # of slots: few shapes come again and again, and oneDNN has made their programs


@dataclass(frozen=True, slots=True)
class RowLayout:
    """Where the parts of a row of T tokens are.

    Attributes:
        prefix: P, the length of the shared prefix, which comes first.
        examples: E, how many own parts follow it.
        longest: L, at least the length of the longest own part.
        gather: For each of the E × L slots the row index of its token; 0 for padding.
        scatter: For each of the T - P tokens of own parts its slot.
        causal: Added to the scores of the prefix: 0 where a key is seen, -inf where not, (P, P).
        hidden: The same for an own part's queries against P + L keys, (L, P + L).
        is_long: Whether this is one long example, which needs neither of the two: both are empty.
    """

    prefix: int
    examples: int
    longest: int
    gather: Tensor
    scatter: Tensor
    causal: Tensor
    hidden: Tensor
    is_long: bool


def row_layout(prefix: int, lengths: Sequence[int]) -> RowLayout:
    """The layout of a row: a prefix, then own parts of these lengths."""
    longest = -(-max(lengths) // _MULTIPLE) * _MULTIPLE
    slots = torch.arange(longest)[None, :].expand(len(lengths), -1)
    size = torch.tensor(lengths)[:, None]
    start = prefix + size.cumsum(0) - size
    filled = slots < size
    is_long = len(lengths) == 1 and prefix + lengths[0] > LONG_EXAMPLE
    keys, queries = (0, 0) if is_long else (prefix, longest)
    own = torch.full((queries, queries), float("-inf")).triu(1)
    causal = torch.full((keys, keys), float("-inf")).triu(1)
    return RowLayout(
        prefix=prefix,
        examples=len(lengths),
        longest=longest,
        gather=torch.where(filled, start + slots, 0).flatten(),
        scatter=filled.flatten().nonzero()[:, 0],
        causal=causal,
        hidden=torch.cat([torch.zeros(queries, keys), own], dim=1),
        is_long=is_long,
    )


def attend(qkv: Tensor, heads: int, layout: RowLayout, scaling: float) -> Tensor:
    """Queries, keys and values of all heads (T, H + 2K, D), H a multiple of K, to (T, H × D)."""
    if has_fused_attention(qkv.device, qkv.dtype) and qkv.shape[2] % 8 == 0 and qkv.shape[2] <= 256:
        return _attend_fused(qkv, heads, layout, scaling)
    if layout.is_long:
        return _attend_alone(qkv, heads, scaling)
    mixed: Tensor = _Attend.apply(qkv, heads, layout, scaling)  # type: ignore[no-untyped-call]
    return mixed


def has_fused_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has FlashAttention (arXiv:2307.08691) there; of D it asks for a multiple of 8,
    up to 256."""
    return (
        device.type == "cuda"
        and dtype == torch.bfloat16
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _attend_fused(qkv: Tensor, heads: int, layout: RowLayout, scaling: float) -> Tensor:
    """By a GPU's kernel that keeps no weights, and never writes them to its memory."""
    examples, longest, p = layout.examples, layout.longest, layout.prefix
    slots: Tensor = _ToSlots.apply(qkv.flatten(1), layout)  # type: ignore[no-untyped-call]
    query, keys, values = _heads(slots.view(examples, longest, -1, qkv.shape[2]), heads)
    mixed = []
    if p:
        first, key, value = _heads(qkv[None, :p], heads)
        mixed.append(_flash(first, key, value, scaling)[0])
        keys = torch.cat([key.expand(examples, -1, -1, -1), keys], dim=2)
        values = torch.cat([value.expand(examples, -1, -1, -1), values], dim=2)
    rows = _flash(query, keys, values, scaling).flatten(0, 1)
    own: Tensor = _FromSlots.apply(rows, layout)  # type: ignore[no-untyped-call]
    return torch.cat([*mixed, own])


def _attend_alone(qkv: Tensor, heads: int, scaling: float) -> Tensor:
    """Of one example, whose prefix and own part are one sequence of tokens."""
    query, key, value = _heads(qkv[None], heads)
    mixed = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return mixed[0].transpose(0, 1).flatten(1)


class _ToSlots(torch.autograd.Function):
    """Rows (T, C) to slots (E × L, C). Nobody looks at what padded slots hold: left to autograd,
    their gradients, all zero, would make a sum of what is a copy."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: RowLayout) -> Tensor:
        ctx.layout, ctx.shape = layout, rows.shape
        return rows.index_select(0, layout.gather)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        p = ctx.layout.prefix
        grad = grads[0].new_zeros(ctx.shape)
        torch.index_select(grads[0], 0, ctx.layout.scatter, out=grad[p:])
        return grad, None


class _FromSlots(torch.autograd.Function):
    """Slots (E × L, C) to rows of own parts (T - P, C)."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, layout: RowLayout) -> Tensor:
        ctx.layout, ctx.shape = layout, slots.shape
        return slots.index_select(0, layout.scatter)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0].new_zeros(ctx.shape)
        return grad.index_copy_(0, ctx.layout.scatter, grads[0]), None


def _flash(query: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
    """Query (E, H, L, D), keys and values (E, K, P + L, D) to (E, L, H × D).

    Causal, from the last key and the last query on: the kernel itself is called, since torch's way
    to say so by `scaled_dot_product_attention` imports its compiler, which takes a second.
    """
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    mixed: Tensor = flash(query, keys, values, 0.0, True, False, scale=scaling)[0]
    return mixed.transpose(1, 2).flatten(2)


def _heads(rows: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(E, L, H + 2K, D) to queries (E, H, L, D), keys and values (E, K, L, D), as views."""
    kv = (rows.shape[2] - heads) // 2
    query, key, value = rows.transpose(1, 2).tensor_split((heads, heads + kv), dim=1)
    return query, key, value


class _Block(NamedTuple):
    """Queries (K × E, rows, D), keys and values (K × E, keys, D), weights (K × E, rows, keys)."""

    query: Tensor
    key: Tensor
    value: Tensor
    weights: Tensor


class _Attend(torch.autograd.Function):
    """By hand in both directions: left to autograd, the copies into slots and back alone take
    several times as long, since it makes scatter-adds of them.

    The prefix and the own parts are two blocks of the same shape of work, (K × E, rows, keys):
    for the prefix E is 1; for own parts the prefix's keys stand before each example's own. Query
    heads that share a key head join its rows. Padded slots hold some token: nobody looks at their
    keys, and what they see themselves goes nowhere.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, layout: RowLayout, scaling: float) -> Tensor:
        ctx.layout, ctx.scaling, ctx.heads, p = layout, scaling, heads, layout.prefix
        slots = qkv.flatten(1).index_select(0, layout.gather).view(-1, *qkv.shape[1:])
        query, key, value = _split(qkv[:p], heads, 1)
        before = _weighed(query, key.flatten(0, 1), value.flatten(0, 1), layout.causal, scaling)
        query, own_key, own_value = _split(slots, heads, layout.examples)
        keys, values = _behind(key, own_key), _behind(value, own_value)
        after = _weighed(query, keys, values, layout.hidden, scaling)
        ctx.save_for_backward(*before, *after)
        mixed = qkv.new_empty(len(qkv), heads * qkv.shape[2])
        mixed[:p] = _to_rows(before.weights @ before.value, 1, heads)
        rows = _to_rows(after.weights @ after.value, layout.examples, heads)
        torch.index_select(rows, 0, layout.scatter, out=mixed[p:])
        return mixed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout, heads, p = ctx.layout, ctx.heads, ctx.layout.prefix
        before, after = _Block(*ctx.saved_tensors[:4]), _Block(*ctx.saved_tensors[4:])
        examples, kv, dim = layout.examples, len(before.query), before.query.shape[2]
        slots = grads[0].new_zeros(len(layout.gather), heads * dim)
        slots.index_copy_(0, layout.scatter, grads[0][p:])
        of_prefix = _backward(_from_rows(grads[0][:p], heads, 1, kv), before, ctx.scaling)
        of_own = _backward(_from_rows(slots, heads, examples, kv), after, ctx.scaling)
        grad = grads[0].new_empty(len(grads[0]), heads + 2 * kv, dim)
        own = grads[0].new_empty(len(layout.gather), heads + 2 * kv, dim)
        grad[:p, :heads] = _to_rows(of_prefix[0], 1, heads).view(p, heads, dim)
        own[:, :heads] = _to_rows(of_own[0], examples, heads).view(-1, heads, dim)
        for number, start in ((1, heads), (2, heads + kv)):
            columns = slice(start, start + kv)
            side = of_own[number].view(kv, examples, p + layout.longest, dim)
            own[:, columns] = side[:, :, p:].permute(1, 2, 0, 3).flatten(0, 1)
            # The prefix collects from itself and from all examples.
            grad[:p, columns] = side[:, :, :p].sum(1).add_(of_prefix[number]).transpose(0, 1)
        torch.index_select(own.flatten(1), 0, layout.scatter, out=grad.flatten(1)[p:])
        return grad, None, None, None


def _weighed(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, scaling: float) -> _Block:
    """A block with its weights; `hidden` (L, keys) is added to the scores of each query head."""
    heads, (length, keys) = query.shape[1] // max(1, len(hidden)), hidden.shape
    mask = hidden.to(query.dtype).expand(heads, length, keys).reshape(heads * length, keys)
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scaling)
    # In float32, since torch's softmax in bf16 is slower, and coarser.
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return _Block(query, key, value, weights)


def _backward(grad: Tensor, block: _Block, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values of a block."""
    weights = block.weights
    grad_weights = grad @ block.value.transpose(1, 2)
    grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    grad_scores.mul_(scaling)
    return (
        grad_scores @ block.key,
        grad_scores.transpose(1, 2) @ block.query,
        weights.transpose(1, 2) @ grad,
    )


def _split(qkv: Tensor, heads: int, examples: int) -> tuple[Tensor, Tensor, Tensor]:
    """(E × L, H + 2K, D) to queries (K × E, H / K × L, D), keys and values (K, E, L, D)."""
    kv = (qkv.shape[1] - heads) // 2
    sides = qkv.view(examples, len(qkv) // examples, *qkv.shape[1:]).permute(2, 0, 1, 3)
    query = _from_rows(qkv[:, :heads], heads, examples, kv)
    return query, sides[heads : heads + kv], sides[heads + kv :]


def _behind(prefix: Tensor, own: Tensor) -> Tensor:
    """Keys or values of the prefix (K, 1, P, D) before those of each example (K, E, L, D)."""
    return torch.cat([prefix.expand(-1, own.shape[1], -1, -1), own], dim=2).flatten(0, 1)


def _from_rows(rows: Tensor, heads: int, examples: int, kv: int) -> Tensor:
    """(E × L, H, D), or with H and D as one, to (K × E, H / K × L, D)."""
    length, share, dim = len(rows) // examples, heads // kv, rows.shape[1:].numel() // heads
    parts = rows.reshape(examples, length, kv, share, dim).permute(2, 0, 3, 1, 4)
    return parts.reshape(kv * examples, share * length, dim)


def _to_rows(block: Tensor, examples: int, heads: int) -> Tensor:
    """The reverse of _from_rows, with heads and D as one: (E × L, H × D)."""
    kv, dim = len(block) // examples, block.shape[2]
    length = block.shape[1] * kv // heads
    parts = block.view(kv, examples, heads // kv, length, dim).permute(1, 3, 0, 2, 4)
    return parts.reshape(examples * length, heads * dim)
