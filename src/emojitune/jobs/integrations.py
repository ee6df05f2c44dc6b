"""A job's metrics for Weights & Biases: an offline run in the job's folder, no network.

`wandb sync` sends such a run to whom its owner wants. The package is not ours to require: without
it, or when it fails, the job goes on and says so once.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from emojitune.disk import make_private
from emojitune.store.jobs import Job

_log = logging.getLogger(__name__)

Tell = Callable[[Literal["info", "warn"], str], None]


class WandbRuns:
    """One offline run for each integration of a job."""

    def __init__(self, job: Job, folder: Path, tell: Tell) -> None:
        self._tell = tell
        self._runs: list[Any] = []
        settings = [integration["wandb"] for integration in job.integrations]
        if settings:
            self._guarded(lambda: self._begin(job, folder, settings))

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of one step."""
        numbers = {name: value for name, value in metrics.items() if name != "total_steps"}
        for run in self._runs:
            self._guarded(partial(run.log, numbers, step=metrics["step"]))

    def finish(self) -> None:
        """Close the runs, whatever became of the job."""
        for run in self._runs:
            self._guarded(run.finish)

    def _begin(self, job: Job, folder: Path, settings: Sequence[Mapping[str, Any]]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would be sent over the network
        try:
            import wandb
        except ImportError:
            self._tell(
                "warn",
                "The wandb package is not installed where this server runs, so no metrics are "
                "written for Weights & Biases: install it there before the next job. The job's "
                "own events and result file hold the same numbers",
            )
            return
        make_private(folder)
        for number, asked in enumerate(settings):
            run = wandb.init(
                project=asked["project"],
                name=asked["name"] or job.id,
                entity=asked["entity"],
                tags=[*asked["tags"], "emojitune", job.model[:64], job.id],
                id=f"{job.id}-{number}",
                config={"model": job.model, "seed": job.seed, **job.hyperparameters},
                mode="offline",
                dir=str(folder),
                reinit="create_new",
            )
            self._runs.append(run)
        self._tell(
            "info",
            f"Metrics for Weights & Biases are written under {folder / 'wandb'}, without network: "
            "`wandb sync` sends them",
        )

    def _guarded(self, action: Callable[[], None]) -> None:
        # Other people's code, of any version: nothing that it does may cost the user the job.
        try:
            action()
        except Exception as error:
            _log.exception("Weights & Biases failed.")
            self._runs = []
            self._tell("warn", f"Metrics for Weights & Biases are no longer written: {error}")
