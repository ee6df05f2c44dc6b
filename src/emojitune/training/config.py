"""TrainingConfig: concrete numbers only. Who chose them, and why, is `jobs/plan.py`'s business."""

from dataclasses import dataclass

# Tokens of one example beyond which attention computes its weights again on the way back: kept in
# every layer, they grow with the square of an example. Of shorter ones keeping them is quicker.
LONG_EXAMPLE = 1024
_EXAMPLES_PER_THREAD = 4  # examples of a batch that are worth a thread of their own


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that decides what an adapter becomes, besides the data and the base model.

    Attributes:
        epochs: Passes over the training examples.
        batch_size: Examples per optimizer step.
        learning_rate: AdamW's, at its peak.
        seed: Decides the LoRA draw and the order of examples.
        rank: Rank of the LoRA updates.
        alpha: Updates are scaled by alpha / rank.
        warmup: Share of all steps over which the learning rate rises; it then falls to zero in a
            straight line.
        max_grad_norm: Gradients are scaled down to this norm (L2, all of them together).
        max_tokens: Longer examples lose tokens from their end, before they are trained on.
        row_tokens: Longest packed row. Rows of a batch are summed up, which rounds in their order.
        smoothing: Share of a target's probability that goes to the other replies of a closed set.
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
    """How many threads take parts of a batch through the model, each on its own."""
    return max(1, min(threads, batch_size // _EXAMPLES_PER_THREAD))
