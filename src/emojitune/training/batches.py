"""Rendered examples packed into rows that share their common prompt prefix.

A pack is one row of tokens: the prefix that all its examples begin with, once, then each example's
own tokens. Sequence packing (Krell et al., 2021, arXiv:2107.02027) avoids padding; sharing the
prefix computes a system prompt once a row, not once an example.

    examples   S S S u1 u1 a1 .        S S S u2 a2 .        (S prefix, u user, a assistant, . stop)
    row        S S S │ u1 u1 a1 │ u2 a2
    positions  0 1 2 │ 3  4  5  │ 3  4

A token attends to the prefix and to the earlier tokens of its own example, at the positions it has
in that example, so losses and gradients equal those of the separate examples. Tokens after the last
one that predicts a supervised token, such as the stop token, influence no loss and are left out.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from emojitune.models.renderer import RenderedExample
from emojitune.training.attention import RowLayout, row_layout
from emojitune.training.losses import LabelSmoothing, TargetShifts, no_shifts

# Tokens of a row, and its logits, come in multiples of these: for every new shape of a product
# oneDNN compiles a kernel, which takes longer than the product, and keeps it with its workspace.
_TOKENS_MULTIPLE, _LOGITS_MULTIPLE = 8, 16


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of T tokens with S supervised targets.

    Attributes:
        ids: Token ids, (1, T), int64; padding follows the tokens of the shortest example.
        positions: Positions within the example, (1, T), int64.
        layout: Which tokens are the prefix, and which belong to one example.
        logits_indices: Indices into the row of the tokens that predict the targets, then padding,
            (at least S,), int64.
        targets: Token ids to predict, (S,), int64.
        target_shifts: Differences between smoothed and one-hot targets.
    """

    ids: Tensor
    positions: Tensor
    layout: RowLayout
    logits_indices: Tensor
    targets: Tensor
    target_shifts: TargetShifts


def shuffled_batches(
    examples: Sequence[RenderedExample], batch_size: int, seed: int, epoch: int
) -> list[list[RenderedExample]]:
    """The batches of an epoch; their order depends on seed and epoch only."""
    order = list(examples)
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def truncate(example: RenderedExample, max_tokens: int) -> RenderedExample:
    """The example without the tokens beyond `max_tokens`."""
    return RenderedExample(example.ids[:max_tokens], example.loss_mask[:max_tokens])


def supervised_tokens(example: RenderedExample) -> int:
    """Number of tokens that carry loss; no token predicts the first one of an example."""
    return sum(example.loss_mask[1:])


def forward_tokens(example: RenderedExample) -> int:
    """Number of tokens that the model must see to predict the last supervised one."""
    return next((i for i in range(len(example.loss_mask) - 1, 0, -1) if example.loss_mask[i]), 0)


def pack_rows(
    examples: Sequence[RenderedExample], *, max_tokens: int, smoothing: LabelSmoothing | None = None
) -> Iterator[Pack]:
    """Pack a batch, in its order, into few rows of at most about `max_tokens`.

    The bound limits memory where conversations are long. A longer example gets a row of its own.
    """
    group: list[RenderedExample] = []
    length = 0
    for example in examples:
        if group and length + forward_tokens(example) > max_tokens:
            yield pack_row(group, smoothing)
            group, length = [], 0
        group.append(example)
        length += forward_tokens(example)
    if group:
        yield pack_row(group, smoothing)


def pack_row(examples: Sequence[RenderedExample], smoothing: LabelSmoothing | None = None) -> Pack:
    """Pack examples into one row after their common prefix."""
    prefix = _common_prefix(examples)
    # An example without supervised tokens keeps one of its own: no part of a row is empty.
    ends = [max(forward_tokens(example), prefix + 1) for example in examples]
    lengths = [end - prefix for end in ends]
    # Padding joins the shortest example, where it does not lengthen the slots of attention.
    padding = [0] * len(examples)
    padding[lengths.index(min(lengths))] = -(prefix + sum(lengths)) % _TOKENS_MULTIPLE
    ids = list(examples[0].ids[:prefix])
    positions = list(range(prefix))
    logits_indices: list[int] = []
    targets: list[int] = []
    for example, end, more in zip(examples, ends, padding, strict=True):
        offset = len(ids) - prefix  # from a token's position in its example to its index in the row
        ids += [*example.ids[prefix:end], *[0] * more]
        positions += [*range(prefix, end), *[0] * more]
        for position in range(1, len(example.ids)):
            if example.loss_mask[position]:
                logits_indices.append(position - 1 + offset)
                targets.append(example.ids[position])
    logits_indices += [0] * (-len(logits_indices) % _LOGITS_MULTIPLE)
    return Pack(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        layout=row_layout(prefix, [one + more for one, more in zip(lengths, padding, strict=True)]),
        logits_indices=torch.tensor(logits_indices, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        target_shifts=smoothing.target_shifts(examples) if smoothing else no_shifts(),
    )


def _common_prefix(examples: Sequence[RenderedExample]) -> int:
    """Length of the longest common prefix that predicts no supervised token.

    The token that predicts an example's first supervised one stays in its own part, so that each
    of `logits_indices` belongs to one example.
    """
    last = max(map(forward_tokens, examples))  # 0 where nothing is supervised: nothing has to run
    limit = max(0, min(last, *map(_first_supervised, examples)) - 1)
    shortest, longest = min(e.ids for e in examples), max(e.ids for e in examples)
    shared = 0
    # A prefix of the lexically smallest and largest examples is a prefix of all between them.
    while shared < limit and shortest[shared] == longest[shared]:
        shared += 1
    return shared


def _first_supervised(example: RenderedExample) -> int:
    return next((i for i, on in enumerate(example.loss_mask) if on and i > 0), len(example.ids))
