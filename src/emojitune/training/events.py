"""What training reports while it runs: frozen values, free of torch."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ForwardChosen:
    """The way through the model, in words: the first that is told."""

    name: str


@dataclass(frozen=True, slots=True)
class StepCompleted:
    """One optimizer step. Loss is the mean cross-entropy in nats over the learned tokens.

    `tokens` counts the whole examples of the batch; `token_accuracy` is the share of learned
    tokens that the model, before this step, would have put first. Behind the last step of an epoch
    come a validation, where there is a file for it, and a checkpoint.
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
    """The whole validation file, scored after `step`."""

    step: int
    loss: float
    token_accuracy: float


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    """Where a run is, is on disk; `adapter` is a folder in PEFT's format.

    `ends_epoch` tells an epoch's adapter, a result, from one that is there to go on from.
    """

    step: int
    epoch: int
    adapter: Path
    ends_epoch: bool = True


TrainingEvent = ForwardChosen | StepCompleted | ValidationCompleted | CheckpointSaved
