"""Log-probabilities to one token: temperature, then nucleus, then a draw."""

from collections.abc import Sequence

import torch
from torch import Tensor


def choose(
    log_probabilities: Tensor, *, temperature: float, top_p: float, generator: torch.Generator
) -> int:
    """Draw an index from log-probabilities (V,); temperature 0 takes the largest.

    `top_p` keeps the most probable entries that together hold that much probability, at least one.
    """
    if temperature == 0.0:
        return int(log_probabilities.argmax())
    probabilities = torch.softmax(log_probabilities / temperature, dim=-1)
    if top_p < 1.0:
        probabilities = _nucleus(probabilities, top_p)
    # By hand, because torch.multinomial takes longer over a large vocabulary than the model does.
    bounds = probabilities.cumsum(0, dtype=torch.float64)
    drawn = torch.rand(1, dtype=torch.float64, generator=generator) * bounds[-1]
    return int(torch.searchsorted(bounds, drawn, right=True).clamp_(max=len(bounds) - 1))


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


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    ordered, order = probabilities.sort(descending=True)
    # An entry stays while what comes before it has not reached top_p yet; the first always does.
    keep = ordered.cumsum(0) - ordered < top_p
    keep[0] = True
    return torch.zeros_like(probabilities).index_copy_(0, order[keep], ordered[keep])
