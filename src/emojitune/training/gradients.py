"""Losses and gradients of rendered examples, packed into rows and divided among threads.

Knows neither steps nor learning rates, which are `loop.py`'s.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from emojitune.models.renderer import RenderedExample
from emojitune.training.batches import Pack, forward_tokens, pack_rows, supervised_tokens
from emojitune.training.config import data_parallel_threads
from emojitune.training.device import to_device
from emojitune.training.forward import Forward
from emojitune.training.losses import LabelSmoothing, smoothed_loss, summed_cross_entropy


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """Mean loss, in nats, and share of targets ranked first, over all supervised tokens."""

    loss: float
    accuracy: float


class ThreadedGradients:
    """Data parallelism among threads that share the frozen weights; a context manager.

    Threads that split one matrix product wait for each other after it, thousands of times a step;
    a core that another process keeps busy then delays all of them. Here each thread runs its own
    examples through the model, and they synchronize once a step, as the ranks of data-parallel
    training do in their all-reduce.

    Args:
        batch_size: Of the largest batch; decides the number of threads.
        row_tokens: Longest packed row, in tokens.
        smoothing: Smooths the targets of the loss that is differentiated.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        batch_size: int,
        row_tokens: int,
        smoothing: LabelSmoothing | None = None,
    ) -> None:
        self._forward = forward
        self._row_tokens = row_tokens
        self._smoothing = smoothing
        self._device = device
        self._cores = torch.get_num_threads()
        alone = device.type != "cpu"
        self._count = 1 if alone else data_parallel_threads(batch_size, self._cores)

    def __enter__(self) -> "ThreadedGradients":
        torch.set_num_threads(self._cores // self._count)
        self._threads = ThreadPoolExecutor(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        torch.set_num_threads(self._cores)

    def backward(self, batch: Sequence[RenderedExample]) -> BatchLoss:
        """Set the gradients of the mean, possibly smoothed loss over the batch's supervised tokens.

        Returns:
            The loss without smoothing.
        """
        count = max(1, sum(map(supervised_tokens, batch)))
        parts = split_batch(batch, self._count)
        leaves = self._forward.leaves()
        results = list(self._threads.map(lambda part: self._accumulate(part, leaves, count), parts))
        grads, losses, corrects = zip(*results, strict=True)
        for others in grads[1:]:  # always in the same order: floating-point sums depend on it
            torch._foreach_add_(grads[0], others)
        self._forward.assign_grads(grads[0])
        return BatchLoss(sum(losses) / count, sum(corrects) / count)

    def _accumulate(
        self, examples: Sequence[RenderedExample], leaves: Sequence[Tensor], count: int
    ) -> tuple[list[Tensor], float, int]:
        """Gradients of the leaves in float32, summed loss and number of targets ranked first, for a
        part of a batch with `count` supervised tokens."""
        total: list[Tensor] = []
        loss, correct = 0.0, 0
        for row in pack_rows(examples, max_tokens=self._row_tokens, smoothing=self._smoothing):
            result = row_loss(self._forward, leaves, to_device(row, self._device))
            grads = [grad.float() for grad in torch.autograd.grad(result.smoothed / count, leaves)]
            if total:
                torch._foreach_add_(total, grads)
            total = total or grads
            loss += float(result.loss.detach())
            correct += result.correct
        return total, loss, correct


def split_batch(batch: Sequence[RenderedExample], count: int) -> list[list[RenderedExample]]:
    """A batch in at most `count` parts with about equally many tokens: all wait for the slowest."""
    parts: list[list[RenderedExample]] = [[] for _ in range(min(count, len(batch)))]
    tokens = [0] * len(parts)
    for example in sorted(batch, key=forward_tokens, reverse=True):
        fewest = tokens.index(min(tokens))
        parts[fewest].append(example)
        tokens[fewest] += forward_tokens(example)
    return parts


@torch.no_grad()
def evaluate(
    forward: Forward, device: torch.device, examples: Sequence[RenderedExample], row_tokens: int
) -> BatchLoss:
    """Loss and accuracy over `examples`, without training on them."""
    count = sum(map(supervised_tokens, examples))
    loss, correct = 0.0, 0
    leaves = forward.leaves()
    for row in pack_rows(examples, max_tokens=row_tokens):
        result = row_loss(forward, leaves, to_device(row, device))
        loss += float(result.loss)
        correct += result.correct
    return BatchLoss(loss / max(count, 1), correct / max(count, 1))


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The losses of a row, summed over its targets.

    Attributes:
        loss: Cross-entropy (), in nats.
        smoothed: The same with smoothed targets, ().
        correct: Number of targets ranked first.
    """

    loss: Tensor
    smoothed: Tensor
    correct: int


def row_loss(forward: Forward, leaves: Sequence[Tensor], row: Pack) -> RowLoss:
    """Compute the losses of a row.

    The output head runs at the `logits_indices` only: it is the largest product of a small model.
    """
    logits = forward.logits(row, leaves)
    loss, correct = summed_cross_entropy(logits, row.targets)
    return RowLoss(loss, smoothed_loss(loss, logits, row.target_shifts), int(correct))
