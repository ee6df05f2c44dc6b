"""The numbers of a step under OpenAI's names: as an event, as a sentence, as the result file."""

from collections.abc import Iterable, Mapping
from typing import Any

from emojitune.training.events import StepCompleted, ValidationCompleted

_COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
_VALIDATION_LOSSES = {"valid_loss": "validation loss", "full_valid_loss": "full validation loss"}


def of_step(event: StepCompleted) -> dict[str, Any]:
    """The data of a metrics event."""
    return {
        "step": event.step,
        "total_steps": event.total_steps,
        "train_loss": event.train_loss,
        "train_mean_token_accuracy": event.token_accuracy,
    }


def of_validation(event: ValidationCompleted) -> dict[str, Any]:
    """What a validation adds to the step before it.

    OpenAI tells a batch of the file apart from the whole; here each measurement is of the whole.
    """
    return {
        "valid_loss": event.loss,
        "valid_mean_token_accuracy": event.token_accuracy,
        "full_valid_loss": event.loss,
        "full_valid_mean_token_accuracy": event.token_accuracy,
    }


def sentence(metrics: Mapping[str, Any]) -> str:
    """The message of a metrics event."""
    told = (
        f"Step {metrics['step']}/{metrics['total_steps']}: "
        f"training loss={metrics['train_loss']:.2f}"
    )
    for name, words in _VALIDATION_LOSSES.items():
        if name in metrics:
            told += f", {words}={metrics[name]:.2f}"
    return told


def csv(steps: Iterable[Mapping[str, Any]]) -> str:
    """The result file; a cell is empty where a step has no such number."""
    ordered = sorted(steps, key=lambda metrics: metrics["step"])
    rows = [",".join(str(step.get(key, "")) for key in _COLUMNS.values()) for step in ordered]
    return "\n".join([",".join(_COLUMNS), *rows]) + "\n"
