"""Cross-entropy over a large vocabulary, a few rows at a time.

In float32 the logits of a batch are larger than a processor's cache, and the ready-made loss goes
over them about ten times, forward and backward: a tenth of a training step. A few rows fit.
"""

from typing import Any

import torch
from torch import Tensor

_ROWS = 8


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over rows of -log softmax(logits)[target], computed in float32.

    Args:
        logits: (S, V), in any floating dtype; the gradient comes in the same.
        targets: (S,), int64.
    """
    loss: Tensor = _SummedCrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return loss


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        parts = [part.float().logsumexp(-1) for part in torch.split(logits, _ROWS)]
        normalizers = torch.cat(parts) if parts else logits.new_zeros(0)
        ctx.save_for_backward(logits, targets, normalizers)
        return (normalizers - logits.gather(1, targets[:, None])[:, 0].float()).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        logits, targets, normalizers = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for start in range(0, len(logits), _ROWS):
            rows = slice(start, start + _ROWS)
            softmax = (logits[rows].float() - normalizers[rows, None]).exp_()
            softmax.scatter_add_(1, targets[rows, None], softmax.new_full((len(softmax), 1), -1.0))
            gradient[rows] = softmax.mul_(grads[0])
        return gradient, None
