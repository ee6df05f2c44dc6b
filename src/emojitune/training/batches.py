"""Rendered examples to packed batches that share their common prompt prefix.

A pack is one row of tokens: the prefix that all its examples begin with, once, then what follows
it in each example. A token sees the prefix and the earlier tokens of its own example, at the
positions that it has in its example; so losses and gradients are those of the separate examples,
and a system prompt costs one computation a batch, not one an example. What stands behind the last
token to be predicted, such as the stop token, is seen by nothing that is learned, and left out.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from emojitune.models.renderer import RenderedExample
from emojitune.training.attention import RowLayout, row_layout
from emojitune.training.smoothing import LabelSmoothing

# Tokens of a row, and its places, come in multiples of these: for every new shape of a product
# oneDNN makes a program, which takes longer than the product, and keeps it with its working memory.
_TOKENS_MULTIPLE, _LOGITS_MULTIPLE = 8, 16


@dataclass(frozen=True, slots=True)
class Pack:
    """One row of T tokens, with S places at which the next token is to be learned.

    Attributes:
        ids: Token ids, (1, T); padding stands behind the tokens of the shortest example.
        positions: Positions within the example, (1, T).
        layout: Which tokens are the prefix, and which an example's own.
        places: Indices into the row whose next token is learned, then some that are padding.
        targets: Those next tokens, (S,).
        shifts: What smoothing adds to the probabilities that the loss asks for: at places (M,),
            for tokens (M,), so much (M,).
    """

    ids: Tensor
    positions: Tensor
    layout: RowLayout
    logits_indices: Tensor
    targets: Tensor
    target_shifts: tuple[Tensor, Tensor, Tensor]

    def to(self, device: torch.device) -> "Pack":
        """The same pack on `device`."""
        return Pack(
            self.ids.to(device),
            self.positions.to(device),
            self.layout.to(device),
            self.logits_indices.to(device),
            self.targets.to(device),
            (
                self.target_shifts[0].to(device),
                self.target_shifts[1].to(device),
                self.target_shifts[2].to(device),
            ),
        )


def shuffled_batches(
    examples: Sequence[RenderedExample], batch_size: int, seed: int, epoch: int
) -> list[list[RenderedExample]]:
    """The batches of an epoch; their order depends on seed and epoch only."""
    order = list(examples)
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def truncate(example: RenderedExample, max_tokens: int) -> RenderedExample:
    """The example without the tokens beyond `max_tokens`."""
    return RenderedExample(example.ids[:max_tokens], example.mask[:max_tokens])


def supervised_tokens(example: RenderedExample) -> int:
    """How many tokens of an example carry loss; the first token has nothing to be told from."""
    return sum(example.mask[1:])


def forward_tokens(example: RenderedExample) -> int:
    """How many tokens of an example the model has to see to predict its last learned one."""
    return next((i for i in range(len(example.mask) - 1, 0, -1) if example.mask[i]), 0)


def pack_rows(
    examples: Sequence[RenderedExample], *, max_tokens: int, smoothing: LabelSmoothing | None = None
) -> Iterator[Pack]:
    """Pack a batch into as few rows of at most about `max_tokens` as its order allows.

    The bound holds memory down where chats are long. An example longer than it gets a row of its
    own.
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
    """Pack examples into one row behind their common prefix."""
    prefix = _common_prefix(examples)
    # One that teaches nothing keeps a token of its own, so that no part of a row is empty.
    ends = [max(forward_tokens(example), prefix + 1) for example in examples]
    lengths = [end - prefix for end in ends]
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
            if example.mask[position]:
                logits_indices.append(position - 1 + offset)
                targets.append(example.ids[position])
    logits_indices += [0] * (-len(logits_indices) % _LOGITS_MULTIPLE)
    target_shifts: list[tuple[int, int, float]] = []
    if smoothing is not None:
        found = chain.from_iterable(map(smoothing.target_shifts, examples))
        target_shifts = [
            (at, token, by) for at, shift in enumerate(found) for token, by in shift.items()
        ]
    at, token, by = zip(*target_shifts, strict=True) if target_shifts else ((), (), ())
    return Pack(
        ids=torch.tensor([ids]),
        positions=torch.tensor([positions]),
        layout=row_layout(prefix, [one + more for one, more in zip(lengths, padding, strict=True)]),
        logits_indices=torch.tensor(logits_indices, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        target_shifts=(
            torch.tensor(at, dtype=torch.long),
            torch.tensor(token, dtype=torch.long),
            torch.tensor(by, dtype=torch.float32),
        ),
    )


def _common_prefix(examples: Sequence[RenderedExample]) -> int:
    """Length of the longest common prefix that predicts nothing learned.

    The token that predicts an example's first learned one stays in its own part, so every place
    in a row belongs to one example.
    """
    last = max(
        map(forward_tokens, examples)
    )  # 0 where nothing is learned, and nothing is to be seen
    limit = max(0, min(last, *map(_first_learned, examples)) - 1)
    shortest, longest = min(e.ids for e in examples), max(e.ids for e in examples)
    shared = 0
    # What the lexically smallest and largest share, all share.
    while shared < limit and shortest[shared] == longest[shared]:
        shared += 1
    return shared


def _first_learned(example: RenderedExample) -> int:
    return next((i for i, on in enumerate(example.mask) if on and i > 0), len(example.ids))
