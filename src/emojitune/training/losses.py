"""Losses: summed cross-entropy over a large vocabulary, and label smoothing within a closed set.

Cross-entropy runs a few rows at a time. In float32 the logits of a batch are larger than a
processor's cache, and torch's loss passes over them about ten times, forward and backward: a tenth
of a training step. A few rows fit, and everything needed of them is computed in one pass. On a GPU,
where every kernel launch has a cost, a chunk has many rows, and chunking saves memory only.

Label smoothing (Szegedy et al., 2016, arXiv:1512.00567) spreads a share of a target's probability
over all classes. Here it goes only to tokens that continue some reply of the closed set, each in
proportion to the number of replies it leads to. To plain cross-entropy a token that spells another
label is as wrong as one that spells none, so an unsure model may as well invent a label; smoothed
within the set, it learns the set beside the label. docs/log has the measured effect.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from emojitune.models.renderer import RenderedExample

_CHUNK_ROWS, _CHUNK_ROWS_GPU = 8, 1024


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over rows of -log softmax(logits)[target], and the number of targets ranked first.

    Args:
        logits: (S or more, V), in any floating dtype; the gradient has the same. Rows beyond the
            targets carry no loss.
        targets: (S,), int64.

    Returns:
        The differentiable loss (), in nats and float32, and the count (), int64.
    """
    return _SummedCrossEntropy.apply(logits, targets)  # type: ignore[no-any-return, no-untyped-call]


class _SummedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        loss = logits.new_zeros((), dtype=torch.float32)
        correct = targets.new_zeros(())
        chunk = _CHUNK_ROWS_GPU if logits.is_cuda else _CHUNK_ROWS
        for start in range(0, len(targets), chunk):
            rows = slice(start, min(start + chunk, len(targets)))
            best = logits[rows].amax(-1)
            target = logits[rows].gather(1, targets[rows, None])[:, 0]
            softmax = torch.softmax(logits[rows], dim=-1, dtype=torch.float32)
            # log Σ exp(logit) = best - log softmax(best): no second pass over the exponentials. The
            # best logit has the largest probability, which never rounds to zero.
            loss += (best.float() - target.float() - softmax.amax(-1).log()).sum()
            correct += (target == best).sum()
            if gradient is not None:
                minus_one = softmax.new_full((len(softmax), 1), -1.0)
                gradient[rows] = softmax.scatter_add_(1, targets[rows, None], minus_one)
        if gradient is not None:
            gradient[len(targets) :] = 0.0
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * grads[0], None


@dataclass(frozen=True, slots=True)
class TargetShifts:
    """Sparse differences between smoothed and one-hot targets, M of them.

    Attributes:
        rows: Rows of the logits, (M,), int64.
        tokens: Token ids, (M,), int64.
        amounts: Added to the target probabilities, (M,), float32; those of a row sum to zero.
    """

    rows: Tensor
    tokens: Tensor
    amounts: Tensor


def smoothed_loss(loss: Tensor, logits: Tensor, shifts: TargetShifts) -> Tensor:
    """The summed cross-entropy `loss` () with smoothed instead of one-hot targets.

    Args:
        logits: (S or more, V).
    """
    if not len(shifts.amounts):
        return loss
    # The shifts of a row sum to zero: over log-probabilities or over logits the sum is the same.
    return loss - logits[shifts.rows, shifts.tokens].float() @ shifts.amounts


class LabelSmoothing:
    """The closed set of replies that examples teach, each with its stop token."""

    def __init__(self, examples: Sequence[RenderedExample], epsilon: float) -> None:
        """Collect the replies; `epsilon` is the share of a target's probability to spread."""
        self._epsilon = epsilon
        self._continuations: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for reply in {reply for example in examples for reply in _replies(example)}:
            for position, token in enumerate(reply):
                self._continuations[reply[:position]][token] += 1

    def shifts(self, example: RenderedExample) -> Iterator[Mapping[int, float]]:
        """By supervised token of an example, the change of target probabilities by token id.

        Each mapping sums to zero, and is empty where the set allows one continuation only.
        """
        for reply in _replies(example):
            for position, token in enumerate(reply):
                yield self._shift(self._continuations[reply[:position]], token)

    def target_shifts(self, examples: Sequence[RenderedExample]) -> TargetShifts:
        """The shifts of examples whose supervised tokens are the rows of the logits, in order."""
        rows = enumerate(shift for example in examples for shift in self.shifts(example))
        return _tensors(
            [(row, token, amount) for row, shift in rows for token, amount in shift.items()]
        )

    def _shift(self, continuations: Counter[int], target: int) -> Mapping[int, float]:
        if len(continuations) == 1:
            return {}
        part = self._epsilon / continuations.total()
        shift = {token: part * count for token, count in continuations.items()}
        shift[target] -= self._epsilon
        return shift


def no_shifts() -> TargetShifts:
    """Targets that stay one-hot."""
    return _tensors([])


def _tensors(shifts: Sequence[tuple[int, int, float]]) -> TargetShifts:
    rows, tokens, amounts = zip(*shifts, strict=True) if shifts else ((), (), ())
    return TargetShifts(
        torch.tensor(rows, dtype=torch.long),
        torch.tensor(tokens, dtype=torch.long),
        torch.tensor(amounts, dtype=torch.float32),
    )


def _replies(example: RenderedExample) -> Iterator[tuple[int, ...]]:
    """Runs of supervised tokens; no token predicts the first one of an example."""
    pairs = zip(example.ids[1:], example.loss_mask[1:], strict=True)
    for supervised, run in groupby(pairs, key=lambda pair: pair[1]):
        if supervised:
            yield tuple(token for token, _ in run)
