"""Cross-entropy over a large vocabulary, a few rows at a time.

In float32 the logits of a batch are larger than a processor's cache, and the ready-made loss goes
over them about ten times, forward and backward: a tenth of a training step. A few rows fit, and
all that is wanted of them is computed in one visit. On a GPU, where each operation has to be
started, they are many: it is only memory that this saves there.
"""

from typing import Any

import torch
from torch import Tensor

_ROWS, _ROWS_OF_GPU = 8, 1024


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over rows of -log softmax(logits)[target], and how many targets have the largest logit.

    Args:
        logits: (S or more, V), in any floating dtype; the gradient comes in the same. Rows beyond
            the targets carry no loss.
        targets: (S,), int64.

    Returns:
        The loss in float32, to be differentiated, and the count.
    """
    return _SummedCrossEntropy.apply(logits, targets)  # type: ignore[no-any-return, no-untyped-call]


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        loss = logits.new_zeros((), dtype=torch.float32)
        correct = targets.new_zeros(())
        at_once = _ROWS_OF_GPU if logits.is_cuda else _ROWS
        for start in range(0, len(targets), at_once):
            rows = slice(start, min(start + at_once, len(targets)))
            best = logits[rows].amax(-1)
            target = logits[rows].gather(1, targets[rows, None])[:, 0]
            softmax = torch.softmax(logits[rows], dim=-1, dtype=torch.float32)
            # The best has the largest probability, which is no rounded zero: a sum of exponentials
            # is had from it without computing them again.
            loss += (best.float() - target.float() - softmax.amax(-1).log()).sum()
            correct += (target == best).sum()
            if gradient is not None:
                one_less = softmax.new_full((len(softmax), 1), -1.0)
                gradient[rows] = softmax.scatter_add_(1, targets[rows, None], one_less)
        if gradient is not None:
            gradient[len(targets) :] = 0.0
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grads[0], None
