"""Log-probabilities computed without any cache."""

from collections.abc import Sequence

import torch


def log_probabilities(module: torch.nn.Module, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities after each of `ids`, (ids, V)."""
    with torch.no_grad():
        return torch.log_softmax(module(torch.tensor([list(ids)])).logits[0].float(), -1)
