"""Logits processors: additions to the model's log-probabilities before a token is sampled.

Each gives additions for a few tokens; those of several processors add up. A processor sees only
how often each token has been used in the reply, so an entire reply can be scored without a model.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from emojitune.inference.decoding.params import SamplingParams

Counts = Mapping[int, int]
"""How often each token occurs in the reply so far."""

LogitsProcessor = Callable[[Counts], Mapping[int, float]]
"""Additions to log-probabilities, by token id."""


def processors_for(params: SamplingParams) -> tuple[LogitsProcessor, ...]:
    """The processors that a request needs; none where it leaves the model's distribution alone."""
    processors: list[LogitsProcessor] = []
    if params.logit_bias:
        processors.append(bias(params.logit_bias))
    if params.frequency_penalty or params.presence_penalty:
        processors.append(penalties(params.frequency_penalty, params.presence_penalty))
    return tuple(processors)


def bias(values: Mapping[int, float]) -> LogitsProcessor:
    """A constant addition at every position: -100 all but bans a token, 100 all but demands it."""
    return lambda _counts: values


def penalties(frequency: float, presence: float) -> LogitsProcessor:
    """Subtractions for tokens already used: `frequency` for each use, `presence` once."""
    return lambda counts: {
        token: -(frequency * count + presence) for token, count in counts.items() if count
    }


def apply(row: Tensor, processors: Sequence[LogitsProcessor], counts: Counts) -> Tensor:
    """Log-probabilities (V,) with the additions of all processors; `row` itself is unchanged."""
    for processor in processors:
        if added := processor(counts):
            values = torch.tensor(list(added.values()), dtype=row.dtype)
            row = row.index_add(0, torch.tensor(list(added)), values)
    return row


def total_bias(tokens: Sequence[int], processors: Sequence[LogitsProcessor]) -> float:
    """The sum of all additions along an entire reply."""
    counts: Counter[int] = Counter()
    total = 0.0
    for token in tokens:
        total += sum(processor(counts).get(token, 0.0) for processor in processors)
        counts[token] += 1
    return total


def mask(row: Tensor, allowed: Tensor) -> Tensor:
    """Log-probabilities (V,) with -inf wherever `allowed` (V,) is False."""
    return row.masked_fill(~allowed, -torch.inf)
