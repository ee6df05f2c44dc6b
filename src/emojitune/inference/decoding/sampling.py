"""From log-probabilities to one token: temperature, then nucleus, then a sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

_NEARLY_ZERO = 1e-6  # to divide by less overflows
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class TopLogprobs:
    """A token's log-probability, and the likeliest tokens at its position with theirs."""

    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


def gather_logprobs(row: Tensor, token: int, top: int) -> TopLogprobs:
    """The model's own log-probabilities, of `token` and of the `top` likeliest, from a row (V,)."""
    values, tokens = row.topk(min(top, len(row)))
    likeliest = tuple(zip(tokens.tolist(), values.tolist(), strict=True))
    return TopLogprobs(float(row[token]), likeliest)


def sample(
    log_probabilities: Tensor, *, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """Sample an index from log-probabilities (V,); temperature 0 takes the largest.

    `top_p` keeps the most probable entries that together hold that much probability, at least one.
    """
    if temperature < _NEARLY_ZERO:
        return int(log_probabilities.argmax())
    probabilities = torch.softmax(log_probabilities / temperature, dim=-1)
    if top_p < 1.0:
        probabilities = _nucleus(probabilities, top_p)
    return _sample_in_blocks(probabilities, generator)


def sample_index(
    values: Sequence[float], *, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """An index sampled from a few log-probabilities, whose probabilities need not sum to one."""
    return sample(torch.tensor(values), temperature=temperature, top_p=top_p, generator=generator)


def seeded_generator(seed: int | None, index: int) -> torch.Generator:
    """The random generator of a request's `index`-th reply; randomly seeded without a seed."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed((seed * 1_000_003 + index) % 2**63)
    return generator


def _sample_in_blocks(probabilities: Tensor, generator: torch.Generator) -> int:
    """An index (of V) by two samples: first a block of entries, then an entry of the block.

    Over a large vocabulary torch.multinomial takes longer than the model itself, and a cumulative
    sum over all entries longer than the rest of sampling.
    """
    blocks = functional.pad(probabilities, (0, -len(probabilities) % _BLOCK)).view(-1, _BLOCK)
    bounds = blocks.sum(1).double().cumsum(0)
    threshold = torch.rand(1, dtype=torch.float64, generator=generator) * bounds[-1]
    block = _first_above(bounds, threshold)
    inside = blocks[block].double().cumsum(0)
    before = bounds[block - 1] if block else 0.0
    return block * _BLOCK + _first_above(inside, threshold - before)


def _first_above(sums: Tensor, threshold: Tensor) -> int:
    """The first index whose cumulative sum exceeds `threshold`; where rounding leaves none, the
    last one that adds to the sum."""
    index = int(torch.searchsorted(sums, threshold, right=True))
    return index if index < len(sums) else int(torch.searchsorted(sums, sums[-1:]))


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Probabilities (V,) with 0 outside the nucleus; not normalized."""
    ordered, order = _likeliest(probabilities, top_p)
    # An entry stays while the ones before it have not reached top_p yet; the first always does.
    keep = ordered.cumsum(0) - ordered < top_p
    keep[0] = True
    return torch.zeros_like(probabilities).index_copy_(0, order[keep], ordered[keep])


def _likeliest(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The likeliest entries that hold at least `top_p` together, and their indices, in order.

    A nucleus is small where the model is sure, and sorting a large vocabulary takes ten times as
    long as finding its largest entries.
    """
    for count in (256, 2048):
        if count < len(probabilities):
            ordered, order = probabilities.topk(count)
            if ordered.sum() > top_p:
                return ordered, order
    return probabilities.sort(descending=True)
