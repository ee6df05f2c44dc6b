"""Events of a training run: frozen values, free of torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ForwardChosen:
    """The forward pass in words; always the first event."""

    name: str


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """One optimizer step. After an epoch's last one come a validation, if there is a file for it,
    and a checkpoint.

    Attributes:
        step: From 1, over all epochs.
        epoch: From 1.
        train_loss: Mean cross-entropy in nats over the supervised tokens, before the step.
        token_accuracy: Share of supervised tokens that the model ranked first, before the step.
        tokens: All tokens of the batch's examples: the trained tokens that OpenAI counts.
    """

    step: int
    total_steps: int
    epoch: int
    train_loss: float
    token_accuracy: float
    learning_rate: float
    tokens: int
    ends_epoch: bool = False


@dataclass(frozen=True, slots=True)
class ValidationCompleted:
    """Mean cross-entropy (nats) and accuracy over the entire validation file, after `step`."""

    step: int
    loss: float
    token_accuracy: float


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """A checkpoint on disk, from which the run can be resumed.

    Attributes:
        adapter: A folder in PEFT's format.
        ends_epoch: Whether the adapter is the result of an epoch.
    """

    step: int
    epoch: int
    adapter: Path
    ends_epoch: bool = True


TrainingEvent = ForwardChosen | StepCompleted | ValidationCompleted | CheckpointSaved
