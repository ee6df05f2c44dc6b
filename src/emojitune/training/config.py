"""TrainingConfig: concrete numbers only. jobs/plan.py chooses them, each with a reason."""

from dataclasses import dataclass

# Tokens of one example beyond which attention recomputes its probabilities in the backward pass:
# kept in every layer, they grow with the square of its length. For shorter ones keeping is faster.
LONG_EXAMPLE = 1024
_EXAMPLES_PER_THREAD = 4  # fewer examples of a batch do not repay a thread of their own


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that determines an adapter, apart from the data and the base model.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples per optimizer step.
        learning_rate: Adam's, at its peak.
        seed: Determines the initial LoRA tensors and the order of examples.
        rank: Rank of the LoRA updates (Hu et al., 2021, arXiv:2106.09685).
        alpha: Updates are scaled by alpha / rank.
        warmup: Share of all steps over which the learning rate rises; it then falls to zero in a
            straight line.
        max_grad_norm: Gradients are scaled down to this norm (L2, all of them together).
        max_tokens: Longest example; longer ones are truncated before training.
        row_tokens: Longest packed row. Gradients are summed over the rows of a batch, so their
            number decides rounding.
        smoothing: Label smoothing: share of a target's probability that is spread over the replies
            of a closed set.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    rank: int = 16
    alpha: float = 32.0
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    max_tokens: int = 2048
    row_tokens: int = 1024
    smoothing: float = 0.0


def data_parallel_threads(batch_size: int, threads: int) -> int:
    """Number of threads that run parts of a batch through the model, each by itself."""
    return max(1, min(threads, batch_size // _EXAMPLES_PER_THREAD))
