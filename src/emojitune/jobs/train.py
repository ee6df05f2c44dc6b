"""The fourth step of a job: training runs, and its events become those of the job.

Imports torch: see pipeline.py. Knows nothing of fine-tuned models: the caller publishes the
checkpoints.
"""

import time
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from emojitune.jobs import states
from emojitune.jobs.integrations import WandbRuns
from emojitune.jobs.job_log import FinishEstimate, step_metrics, validation_metrics
from emojitune.jobs.load import Loaded
from emojitune.jobs.prepare import Prepared
from emojitune.jobs.publish import EpochCheckpoint
from emojitune.jobs.run import Run
from emojitune.models.adapter import AdapterInfo
from emojitune.store.leases import LeaseLostError
from emojitune.training import loop
from emojitune.training.checkpoint import CheckpointFolder
from emojitune.training.events import (
    CheckpointSaved,
    ForwardChosen,
    StepCompleted,
    TrainingEvent,
    ValidationCompleted,
)

Checkpoints = Generator[EpochCheckpoint, None, None]


def train(run: Run, prepared: Prepared, loaded: Loaded) -> Checkpoints:
    """Train a job's adapter, report each step, and yield the checkpoint of each epoch.

    Raises:
        Interrupted: The job has to stop; it can be resumed from its last checkpoint.
        LeaseLostError: The job was stopped, or is another worker's by now.
        TrainingError: There is nothing to learn, or the loss is no longer a number.
    """
    timer = _SaveTimer(run.settings.checkpoint_seconds)
    events = loop.train(
        loaded.model,
        loaded.device,
        loaded.training,
        loaded.config,
        _checkpoint_folder(run, prepared, loaded),
        validation=loaded.validation,
        initial=loaded.initial,
        should_save=lambda: run.control.stopping() or timer.is_due(),
    )
    wandb_runs = WandbRuns(run.job, run.folder, partial(_report_integration, run))
    try:
        yield from _follow(run, loaded, events, timer, wandb_runs)
    finally:
        wandb_runs.finish()


def _follow(
    run: Run,
    loaded: Loaded,
    events: Iterator[TrainingEvent],
    timer: "_SaveTimer",
    wandb_runs: WandbRuns,
) -> Checkpoints:
    """Report training's events. The last step of an epoch is reported with its validation."""
    knn, batch_size = loaded.knn_examples, loaded.config.batch_size
    estimate = FinishEstimate(knn.duration_in_steps(batch_size) if knn else 0.0)
    metrics: dict[str, Any] = {}
    finish: int | None = None
    last: EpochCheckpoint | None = None

    def report_step() -> None:
        run.log.step(metrics, finish)
        wandb_runs.log(metrics)

    for event in events:
        run.control.check()
        match event:
            case ForwardChosen():
                run.log.info(f"Training through {event.name}", "forward")
            case StepCompleted():
                metrics = step_metrics(event)
                finish = estimate.after(event.step, event.total_steps)
                if not event.ends_epoch:
                    try:
                        report_step()
                    except LeaseLostError:  # paused just now: its checkpoint has the step,
                        run.control.stop()  # which is reported when the job is resumed
            case ValidationCompleted():
                metrics |= validation_metrics(event)
            case CheckpointSaved():
                if event.ends_epoch:
                    report_step()
                    if event.epoch == loaded.config.epochs:
                        last = _final(run, loaded, event, metrics)
                        continue
                    yield EpochCheckpoint(event.step, event.adapter, metrics)
                timer.restart()
                run.leave_if_stopping()
    assert last is not None, "training ends with a checkpoint"
    yield last  # only now: training is over, and its datastore is computed by all threads
    run.leave_if_stopping()


class _SaveTimer:
    """Measures the time since the last checkpoint."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.restart()

    def restart(self) -> None:
        self._started = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._started >= self._seconds


def _checkpoint_folder(run: Run, prepared: Prepared, loaded: Loaded) -> CheckpointFolder:
    info = AdapterInfo(
        base=prepared.base.model.name,
        rank=loaded.config.rank,
        alpha=loaded.config.alpha,
        vocabulary=prepared.vocabulary,
    )
    # A job that was paused, or put back into the queue, is resumed from its checkpoint too.
    fence = partial(run.control.fence, states.JOB.unfinished)
    return CheckpointFolder(run.checkpoints, info, fence=fence)


def _report_integration(run: Run, level: Literal["info", "warn"], message: str) -> None:
    report = run.log.warn if level == "warn" else run.log.info
    report(message, f"integrations-{level}")


def _final(
    run: Run, loaded: Loaded, event: CheckpointSaved, metrics: dict[str, Any]
) -> EpochCheckpoint:
    complete = partial(_add_datastore, run, loaded) if loaded.knn_examples else None
    return EpochCheckpoint(event.step, event.adapter, metrics, final=True, complete=complete)


def _add_datastore(run: Run, loaded: Loaded, adapter: Path) -> None:
    """Put the kNN datastore of a finished adapter into its folder."""
    examples = loaded.knn_examples
    assert examples is not None
    run.log.info(
        f"{len(examples.replies)} training examples stay with the model: replies are "
        "re-ranked by those nearest to the prompt",
        "examples",
    )
    examples.datastore(adapter, run.control.check).save(adapter)
