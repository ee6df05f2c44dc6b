"""Log-probabilities to one token: shapes, temperature, then nucleus, then a draw.

A shape adds to what the model said before a draw; any number of them add up.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Counts = Mapping[int, int]
"""How often each token stands in the reply so far."""

Shape = Callable[[Counts], Mapping[int, float]]
"""What is added to the log-probability of which tokens."""

_NEARLY_ZERO = 1e-6  # to divide by less overflows
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token's log-probability, and the likeliest tokens in its place with theirs."""

    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


def biased(bias: Mapping[int, float]) -> Shape:
    """The same for each token: -100 all but bans one, 100 all but demands it."""
    return lambda _counts: bias


def penalized(frequency: float, presence: float) -> Shape:
    """Less for tokens that the reply has used: for each use, and once for any."""
    return lambda counts: {
        token: -(frequency * count + presence) for token, count in counts.items() if count
    }


def shapes_of(bias: Mapping[int, float], frequency: float, presence: float) -> tuple[Shape, ...]:
    """Those that change anything."""
    shapes = [biased(bias)] if bias else []
    return (*shapes, penalized(frequency, presence)) if frequency or presence else tuple(shapes)


def shaped(row: Tensor, shapes: Sequence[Shape], counts: Counts) -> Tensor:
    """The log-probabilities with all that the shapes add."""
    for shape in shapes:
        if added := shape(counts):
            values = torch.tensor(list(added.values()), dtype=row.dtype)
            row = row.index_add(0, torch.tensor(list(added)), values)
    return row


def shift(tokens: Sequence[int], shapes: Sequence[Shape]) -> float:
    """What the shapes add along a whole reply."""
    counts: Counter[int] = Counter()
    total = 0.0
    for token in tokens:
        total += sum(shape(counts).get(token, 0.0) for shape in shapes)
        counts[token] += 1
    return total


def masked(row: Tensor, allowed: Tensor) -> Tensor:
    """What is not allowed becomes impossible."""
    return row.masked_fill(~allowed, -torch.inf)


def score(row: Tensor, token: int, top: int) -> TokenScore:
    """What the model itself says of `token`, and of the `top` likeliest."""
    values, tokens = row.topk(min(top, len(row)))
    likeliest = tuple(zip(tokens.tolist(), values.tolist(), strict=True))
    return TokenScore(float(row[token]), likeliest)


def choose(
    log_probabilities: Tensor, *, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """Draw an index from log-probabilities (V,); temperature 0 takes the largest.

    `top_p` keeps the most probable entries that together hold that much probability, at least one.
    """
    if temperature < _NEARLY_ZERO:
        return int(log_probabilities.argmax())
    probabilities = torch.softmax(log_probabilities / temperature, dim=-1)
    if top_p < 1.0:
        probabilities = _nucleus(probabilities, top_p)
    return _draw(probabilities, generator)


def choose_of(
    values: Sequence[float], *, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """The same from a few log-probabilities, which need not sum to one."""
    return choose(torch.tensor(values), temperature=temperature, top_p=top_p, generator=generator)


def seeded(seed: int | None, index: int) -> torch.Generator:
    """The generator of the `index`-th reply to a request; a fresh one when no seed is given."""
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed((seed * 1_000_003 + index) % 2**63)
    return generator


def _draw(probabilities: Tensor, generator: torch.Generator) -> int:
    """Draw a block of entries, then one of the block.

    Over a large vocabulary torch.multinomial takes longer than the model does, and a running sum
    over all of it longer than all else that is done to sample.
    """
    blocks = functional.pad(probabilities, (0, -len(probabilities) % _BLOCK)).view(-1, _BLOCK)
    bounds = blocks.sum(1).double().cumsum(0)
    drawn = torch.rand(1, dtype=torch.float64, generator=generator) * bounds[-1]
    block = _first_beyond(bounds, drawn)
    inside = blocks[block].double().cumsum(0)
    before = bounds[block - 1] if block else 0.0
    return block * _BLOCK + _first_beyond(inside, drawn - before)


def _first_beyond(sums: Tensor, drawn: Tensor) -> int:
    """Where a running sum exceeds what was drawn; its last growth where rounding lets none."""
    found = int(torch.searchsorted(sums, drawn, right=True))
    return found if found < len(sums) else int(torch.searchsorted(sums, sums[-1:]))


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    ordered, order = probabilities.sort(descending=True)
    # An entry stays while what comes before it has not reached top_p yet; the first always does.
    keep = ordered.cumsum(0) - ordered < top_p
    keep[0] = True
    return torch.zeros_like(probabilities).index_copy_(0, order[keep], ordered[keep])
