"""Attention over a packed row: each example attends to the shared prefix and to itself.

    a row of prefix P and examples A, B       computed as two blocks of dense products

             keys  P  A  B                    prefix   P queries × P keys:  ◣
    queries  P     ◣  .  .
             A     ■  ◣  .                    own      E × L queries × (P + L) keys:  ■ ◣   (A)
             B     ■  .  ◣                                                            ■ ◣   (B)

    ■ all visible    ◣ causal    . hidden     own parts lie in E × L slots, padded to L

A dense mask over the row would compute the same, at a cost of T²: in the backward pass of a CPU
that was a fifth of an entire training step. The two blocks skip the scores between examples; on
GPUs with FlashAttention they are two calls of its kernel.

The attention probabilities of both blocks are kept for the backward pass, in every layer. Those of
one long example would take most of the memory: its row goes through torch's own attention, which
computes them again.

Shapes: T tokens of a row, P of its prefix, E examples, L slots of each, H query heads, K heads of
keys and values (a divisor of H: Ainslie et al., 2023, arXiv:2305.13245), D numbers a head. Knows
neither tokens nor losses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from emojitune.training.config import LONG_EXAMPLE

_SLOTS_MULTIPLE = 4  # few shapes recur often, so that oneDNN has compiled their kernels


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The places of the parts of a row of T tokens.

    Attributes:
        prefix: P, the length of the shared prefix, which comes first.
        examples: E, the number of own parts after it.
        longest: L, at least the length of the longest own part.
        gather: The row index of the token in each slot, (E × L,), int64; 0 for padding.
        scatter: The slot of each token of the own parts, (T - P,), int64.
        prefix_mask: Added to the scores of the prefix, (P, P): 0 for a visible key, else -inf.
        own_mask: Added to the scores of an own part's queries, (L, P + L).
        is_long: Whether this is one long example, which needs no masks: both are empty.
    """

    prefix: int
    examples: int
    longest: int
    gather: Tensor
    scatter: Tensor
    prefix_mask: Tensor
    own_mask: Tensor
    is_long: bool


def row_layout(prefix: int, lengths: Sequence[int]) -> RowLayout:
    """The layout of a row: a prefix, then own parts of these lengths, in tokens."""
    longest = -(-max(lengths) // _SLOTS_MULTIPLE) * _SLOTS_MULTIPLE
    slots = torch.arange(longest)[None, :].expand(len(lengths), -1)
    size = torch.tensor(lengths)[:, None]
    start = prefix + size.cumsum(0) - size
    filled = slots < size
    is_long = len(lengths) == 1 and prefix + lengths[0] > LONG_EXAMPLE
    keys, queries = (0, 0) if is_long else (prefix, longest)
    own = torch.full((queries, queries), float("-inf")).triu(1)
    return RowLayout(
        prefix=prefix,
        examples=len(lengths),
        longest=longest,
        gather=torch.where(filled, start + slots, 0).flatten(),
        scatter=filled.flatten().nonzero()[:, 0],
        prefix_mask=torch.full((keys, keys), float("-inf")).triu(1),
        own_mask=torch.cat([torch.zeros(queries, keys), own], dim=1),
        is_long=is_long,
    )


def attend(qkv: Tensor, heads: int, layout: RowLayout, scaling: float) -> Tensor:
    """Attention of a row, differentiable by its queries, keys and values.

    Args:
        qkv: Queries, keys and values of all heads, (T, H + 2K, D).
        heads: H.
        scaling: Factor of the scores, usually D ** -0.5.

    Returns:
        (T, H × D).
    """
    if has_fused_attention(qkv.device, qkv.dtype) and qkv.shape[2] % 8 == 0 and qkv.shape[2] <= 256:
        return _attend_fused(qkv, heads, layout, scaling)
    if layout.is_long:
        return _attend_single(qkv, heads, scaling)
    out: Tensor = _PackedAttention.apply(  # type: ignore[no-untyped-call]
        qkv, heads, layout, scaling
    )
    return out


def has_fused_attention(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch has FlashAttention (Dao, 2023, arXiv:2307.08691) there; it requires D to be a
    multiple of 8, up to 256."""
    return (
        device.type == "cuda"
        and dtype == torch.bfloat16
        and torch.version.cuda is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _attend_fused(qkv: Tensor, heads: int, layout: RowLayout, scaling: float) -> Tensor:
    """By a GPU kernel that never writes attention probabilities to memory."""
    examples, longest, p = layout.examples, layout.longest, layout.prefix
    slots: Tensor = _ToSlots.apply(qkv.flatten(1), layout)  # type: ignore[no-untyped-call]
    query, keys, values = _split_heads(slots.view(examples, longest, -1, qkv.shape[2]), heads)
    out = []
    if p:
        prefix_query, key, value = _split_heads(qkv[None, :p], heads)
        out.append(_flash(prefix_query, key, value, scaling)[0])
        # The prefix's keys and values precede each example's own: the kernel's causal mask is
        # aligned with the last key, so every own query sees all of the prefix.
        keys = torch.cat([key.expand(examples, -1, -1, -1), keys], dim=2)
        values = torch.cat([value.expand(examples, -1, -1, -1), values], dim=2)
    rows = _flash(query, keys, values, scaling).flatten(0, 1)
    own: Tensor = _FromSlots.apply(rows, layout)  # type: ignore[no-untyped-call]
    return torch.cat([*out, own])


def _attend_single(qkv: Tensor, heads: int, scaling: float) -> Tensor:
    """For one example, whose prefix and own part are one sequence."""
    query, key, value = _split_heads(qkv[None], heads)
    out = functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=True
    )
    return out[0].transpose(0, 1).flatten(1)


class _ToSlots(torch.autograd.Function):
    """Rows (T, C) to slots (E × L, C).

    Padded slots influence nothing, so their gradients are all zero; autograd would sum them with
    those of the tokens, and turn a copy into a scatter-add.
    """

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
    """Slots (E × L, C) to the rows of own parts (T - P, C)."""

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

    Causal, aligned with the last key and the last query. The kernel itself is called: requesting
    that alignment of `scaled_dot_product_attention` imports torch's compiler, which takes a second.
    """
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    out: Tensor = flash(query, keys, values, 0.0, True, False, scale=scaling)[0]
    return out.transpose(1, 2).flatten(2)


def _split_heads(rows: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(E, L, H + 2K, D) to queries (E, H, L, D), keys and values (E, K, L, D), as views."""
    kv = (rows.shape[2] - heads) // 2
    query, key, value = rows.transpose(1, 2).tensor_split((heads, heads + kv), dim=1)
    return query, key, value


class _Block(NamedTuple):
    """A block of attention, batched by key head and example.

    Attributes:
        query: (K × E, rows, D), where rows are the H / K query heads of a key head, one after
            another, each with its queries.
        key: (K × E, keys, D).
        value: (K × E, keys, D).
        probs: Attention probabilities, (K × E, rows, keys).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    probs: Tensor


class _PackedAttention(torch.autograd.Function):
    """Attention with a backward pass by hand.

    Left to autograd, the copies into slots and back alone take several times as long, since their
    gradients are scatter-adds.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, layout: RowLayout, scaling: float) -> Tensor:
        ctx.layout, ctx.scaling, ctx.heads, p = layout, scaling, heads, layout.prefix
        # Padded slots hold token 0 of the row; the causal mask hides their keys from every real
        # query, and what they compute themselves is not scattered back.
        slots = qkv.flatten(1).index_select(0, layout.gather).view(-1, *qkv.shape[1:])
        # The prefix is a block of the same shape with E = 1.
        query, key, value = _split_qkv(qkv[:p], heads, 1)
        prefix = _block(query, key.flatten(0, 1), value.flatten(0, 1), layout.prefix_mask, scaling)
        # Each example's keys are the prefix's, then its own: one softmax over both.
        query, own_key, own_value = _split_qkv(slots, heads, layout.examples)
        keys, values = _with_prefix(key, own_key), _with_prefix(value, own_value)
        own = _block(query, keys, values, layout.own_mask, scaling)
        ctx.save_for_backward(*prefix, *own)
        out = qkv.new_empty(len(qkv), heads * qkv.shape[2])
        out[:p] = _to_rows(prefix.probs @ prefix.value, 1, heads)
        rows = _to_rows(own.probs @ own.value, layout.examples, heads)
        torch.index_select(rows, 0, layout.scatter, out=out[p:])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        layout, heads, p = ctx.layout, ctx.heads, ctx.layout.prefix
        prefix, own = _Block(*ctx.saved_tensors[:4]), _Block(*ctx.saved_tensors[4:])
        examples, kv, dim = layout.examples, len(prefix.query), prefix.query.shape[2]
        # Zeros: padded slots have no gradient.
        slots = grads[0].new_zeros(len(layout.gather), heads * dim)
        slots.index_copy_(0, layout.scatter, grads[0][p:])
        prefix_grads = _block_backward(_from_rows(grads[0][:p], heads, 1, kv), prefix, ctx.scaling)
        own_grads = _block_backward(_from_rows(slots, heads, examples, kv), own, ctx.scaling)
        grad = grads[0].new_empty(len(grads[0]), heads + 2 * kv, dim)
        slot_grad = grads[0].new_empty(len(layout.gather), heads + 2 * kv, dim)
        grad[:p, :heads] = _to_rows(prefix_grads[0], 1, heads).view(p, heads, dim)
        slot_grad[:, :heads] = _to_rows(own_grads[0], examples, heads).view(-1, heads, dim)
        for number, start in ((1, heads), (2, heads + kv)):  # keys, then values
            columns = slice(start, start + kv)
            side = own_grads[number].view(kv, examples, p + layout.longest, dim)
            slot_grad[:, columns] = side[:, :, p:].permute(1, 2, 0, 3).flatten(0, 1)
            # The prefix's keys and values were used by the prefix itself and by every example.
            both = side[:, :, :p].sum(1).add_(prefix_grads[number])
            grad[:p, columns] = both.transpose(0, 1)
        torch.index_select(slot_grad.flatten(1), 0, layout.scatter, out=grad.flatten(1)[p:])
        return grad, None, None, None


def _block(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> _Block:
    """A block with its probabilities; `mask` (L, keys) is added to each query head's scores."""
    heads, (length, keys) = query.shape[1] // max(1, len(mask)), mask.shape
    bias = mask.to(query.dtype).expand(heads, length, keys).reshape(heads * length, keys)
    scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scaling)
    # In float32: torch's softmax in bfloat16 is slower and less precise.
    probs = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return _Block(query, key, value, probs)


def _block_backward(grad: Tensor, block: _Block, scaling: float) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values of a block."""
    probs = block.probs
    grad_probs = grad @ block.value.transpose(1, 2)
    grad_scores = torch._softmax_backward_data(grad_probs, probs, -1, probs.dtype)
    grad_scores.mul_(scaling)
    return (
        grad_scores @ block.key,
        grad_scores.transpose(1, 2) @ block.query,
        probs.transpose(1, 2) @ grad,
    )


def _split_qkv(qkv: Tensor, heads: int, examples: int) -> tuple[Tensor, Tensor, Tensor]:
    """(E × L, H + 2K, D) to queries (K × E, H / K × L, D), keys and values (K, E, L, D)."""
    kv = (qkv.shape[1] - heads) // 2
    sides = qkv.view(examples, len(qkv) // examples, *qkv.shape[1:]).permute(2, 0, 1, 3)
    query = _from_rows(qkv[:, :heads], heads, examples, kv)
    return query, sides[heads : heads + kv], sides[heads + kv :]


def _with_prefix(prefix: Tensor, own: Tensor) -> Tensor:
    """Keys or values of the prefix (K, 1, P, D) before those of each example (K, E, L, D), as
    (K × E, P + L, D)."""
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
