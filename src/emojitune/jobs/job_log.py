"""A job's events: messages, the metrics of its steps, and the result file that is made of these.

Each event has a key, and a second one with the same key is ignored: a job that is run again after
an interruption reports nothing twice. Numbers have OpenAI's names.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from emojitune.store.stores import Stores
from emojitune.training.events import StepCompleted, ValidationCompleted

_COLUMNS = {
    "step": "step",
    "train_loss": "train_loss",
    "train_accuracy": "train_mean_token_accuracy",
    "valid_loss": "valid_loss",
    "valid_mean_token_accuracy": "valid_mean_token_accuracy",
}
_VALIDATION_LOSSES = {"valid_loss": "validation loss", "full_valid_loss": "full validation loss"}
_ESTIMATE_EVERY = 2.0  # seconds between updates
_EVENTS_AT_ONCE = 1000


class JobLog:
    """Writes and reads the events of one job."""

    def __init__(self, job_id: str, stores: Stores) -> None:
        self._job_id = job_id
        self._stores = stores

    def info(self, message: str, key: str) -> None:
        """Report progress."""
        self._stores.jobs.add_event(self._job_id, message, key=key)

    def warn(self, message: str, key: str) -> None:
        """Report something that the job's owner may want to change."""
        self._stores.jobs.add_event(self._job_id, message, level="warn", key=key)

    def step(self, metrics: Mapping[str, Any], finish: int | None) -> None:
        """Report a step, and when the job will be done if that was estimated again.

        Raises:
            LeaseLostError: The job was stopped, or is another worker's by now.
        """
        with self._stores.transaction():
            self._stores.jobs.add_event(
                self._job_id,
                step_message(metrics),
                type="metrics",
                data=metrics,
                key=f"step-{metrics['step']}",
            )
            if finish is not None:
                self._stores.jobs.update(self._job_id, estimated_finish=finish)

    def result_file(self) -> bytes:
        """The metrics of all steps as CSV, those from before an interruption too."""
        return metrics_csv(self._metrics()).encode()

    def _metrics(self) -> Iterator[Mapping[str, Any]]:
        after = None
        while True:
            page = self._stores.jobs.events(self._job_id, after=after, limit=_EVENTS_AT_ONCE)
            yield from (event.data for event in page.items if event.type == "metrics")
            if not page.has_more:
                return
            after = page.items[-1].id


class FinishEstimate:
    """The `estimated_finish` of a job, at the pace of the steps that this process sees."""

    def __init__(self, after_training: float = 0.0) -> None:
        """`after_training` is the work that follows the last step, in steps."""
        self._after_training = after_training
        self._first: tuple[int, float] | None = None
        self._updated = 0.0

    def after(self, step: int, total: int) -> int | None:
        """The finish in unix seconds, every few seconds; None in between."""
        clock = time.monotonic()
        if self._first is None:
            self._first = (step, clock)
        first_step, started = self._first
        if step == first_step or clock - self._updated < _ESTIMATE_EVERY:
            return None
        self._updated = clock
        left = (total - step + self._after_training) * (clock - started) / (step - first_step)
        return math.ceil(time.time() + left)


def step_metrics(event: StepCompleted) -> dict[str, Any]:
    """The data of a metrics event."""
    return {
        "step": event.step,
        "total_steps": event.total_steps,
        "train_loss": event.train_loss,
        "train_mean_token_accuracy": event.token_accuracy,
    }


def validation_metrics(event: ValidationCompleted) -> dict[str, Any]:
    """The numbers that a validation adds to the step before it.

    OpenAI reports a batch of the file and the full file; here each measurement is of the full file.
    """
    return {
        "valid_loss": event.loss,
        "valid_mean_token_accuracy": event.token_accuracy,
        "full_valid_loss": event.loss,
        "full_valid_mean_token_accuracy": event.token_accuracy,
    }


def step_message(metrics: Mapping[str, Any]) -> str:
    """The message of a metrics event."""
    message = (
        f"Step {metrics['step']}/{metrics['total_steps']}: "
        f"training loss={metrics['train_loss']:.2f}"
    )
    for name, words in _VALIDATION_LOSSES.items():
        if name in metrics:
            message += f", {words}={metrics[name]:.2f}"
    return message


def metrics_csv(steps: Iterable[Mapping[str, Any]]) -> str:
    """The metrics of steps as CSV; a cell is empty where a step lacks a number."""
    ordered = sorted(steps, key=lambda metrics: metrics["step"])
    rows = [",".join(str(step.get(key, "")) for key in _COLUMNS.values()) for step in ordered]
    return "\n".join([",".join(_COLUMNS), *rows]) + "\n"
