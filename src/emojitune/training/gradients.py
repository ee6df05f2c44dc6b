"""Losses and gradients of rendered examples, packed into rows and shared out to threads.

Knows neither steps nor learning rates: `loop.py` has those.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from emojitune.models import lora
from emojitune.models.chat_template import Rendered
from emojitune.training.batches import Pack, learned_tokens, packs
from emojitune.training.cross_entropy import summed_cross_entropy

_PACK_TOKENS = 4096  # longest row, in tokens
_SHARE = 8  # examples of a batch that are worth a thread of their own


@dataclass(frozen=True, slots=True)
class Score:
    """Mean loss (nats) and share of tokens put first, over all learned tokens."""

    loss: float
    accuracy: float


class Shares:
    """Splits each batch among threads that share nothing but the frozen weights.

    Threads that work on one product wait for each other after it, thousands of times a step; a
    core that something else keeps busy then holds up all of them. Here each thread takes whole
    examples through the model, and they meet once a step.
    """

    def __init__(self, module: Any, device: torch.device, batch_size: int) -> None:
        self._module = module
        self._device = device
        self._parameters = list(lora.adapter_state(module).values())
        self._cores = torch.get_num_threads()
        alone = device.type != "cpu"
        self._count = 1 if alone else max(1, min(self._cores, batch_size // _SHARE))

    def __enter__(self) -> "Shares":
        torch.set_num_threads(self._cores // self._count)
        self._threads = ThreadPoolExecutor(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()
        torch.set_num_threads(self._cores)

    def backward(self, batch: Sequence[Rendered]) -> Score:
        """Set the gradients: of the mean loss over the batch's learned tokens."""
        count = max(1, sum(map(learned_tokens, batch)))
        # Dealt out like cards, so that long examples, where they come in a row, are shared too.
        parts = [batch[first :: self._count] for first in range(min(self._count, len(batch)))]
        results = list(self._threads.map(self._part, parts, [count] * len(parts)))
        for parameter, *grads in zip(
            self._parameters, *(grads for grads, _, _ in results), strict=True
        ):
            # Always in the same order: floating-point sums depend on it.
            parameter.grad = torch.stack(grads).sum(0)
        losses, corrects = zip(*(result[1:] for result in results), strict=True)
        return Score(sum(losses) / count, sum(corrects) / count)

    def _part(self, examples: Sequence[Rendered], count: int) -> tuple[list[Tensor], float, int]:
        """Gradients, summed loss and tokens put first, of a share of a batch."""
        total, loss, correct = [torch.zeros_like(p) for p in self._parameters], 0.0, 0
        for row in packs(examples, max_tokens=_PACK_TOKENS):
            row_loss, row_correct = score_row(self._module, row.to(self._device))
            grads = torch.autograd.grad(row_loss / count, self._parameters)
            torch._foreach_add_(total, grads)
            loss += float(row_loss.detach())
            correct += row_correct
        return total, loss, correct


@torch.no_grad()
def evaluate(module: nn.Module, device: torch.device, examples: Sequence[Rendered]) -> Score:
    """Loss and accuracy over `examples`, none of them learned from."""
    module.eval()
    count = sum(map(learned_tokens, examples))
    loss, correct = 0.0, 0
    for row in packs(examples, max_tokens=_PACK_TOKENS):
        row_loss, row_correct = score_row(module, row.to(device))
        loss += float(row_loss)
        correct += row_correct
    return Score(loss / max(count, 1), correct / max(count, 1))


def score_row(module: nn.Module, row: Pack) -> tuple[Tensor, int]:
    """Summed loss of a row, and how many of its targets the model put first.

    The output head runs at the learned places only: it is the largest product of a small model.
    """
    logits = module(
        input_ids=row.ids,
        position_ids=row.positions,
        row_layout=row.layout,
        logits_to_keep=row.places,
        use_cache=False,
    ).logits[0]
    loss: Tensor = summed_cross_entropy(logits, row.targets)
    return loss, int((logits.argmax(-1) == row.targets).sum())
