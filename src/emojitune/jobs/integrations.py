"""A job's metrics for Weights & Biases: an offline run in the job's folder, no network.

`wandb sync` uploads such a run to an account of its owner. The package is optional: without it, or
when it fails, the job continues and reports that once.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from emojitune.disk import make_private_folder
from emojitune.store.jobs import Job

_log = logging.getLogger(__name__)

Report = Callable[[Literal["info", "warn"], str], None]


class WandbRuns:
    """One offline run for each integration of a job."""

    def __init__(self, job: Job, folder: Path, report: Report) -> None:
        self._report = report
        self._runs: list[Any] = []
        settings = [integration["wandb"] for integration in job.integrations]
        if settings:
            self._protected(lambda: self._begin(job, folder, settings))

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of one step."""
        numbers = {name: value for name, value in metrics.items() if name != "total_steps"}
        for run in self._runs:
            self._protected(partial(run.log, numbers, step=metrics["step"]))

    def finish(self) -> None:
        """Close the runs, however the job ended."""
        for run in self._runs:
            self._protected(run.finish)

    def _begin(self, job: Job, folder: Path, settings: Sequence[Mapping[str, Any]]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would be sent over the network
        try:
            import wandb
        except ImportError:
            self._report(
                "warn",
                "The wandb package is not installed where this server runs, so no metrics are "
                "written for Weights & Biases: install it there before the next job. The job's "
                "own events and result file hold the same numbers",
            )
            return
        make_private_folder(folder)
        for number, one in enumerate(settings):
            run = wandb.init(
                project=one["project"],
                name=one["name"] or job.id,
                entity=one["entity"],
                tags=[*one["tags"], "emojitune", job.model[:64], job.id],
                id=f"{job.id}-{number}",
                config={"model": job.model, "seed": job.seed, **job.hyperparameters},
                mode="offline",
                dir=str(folder),
                reinit="create_new",
            )
            self._runs.append(run)
        self._report(
            "info",
            f"Metrics for Weights & Biases are written under {folder / 'wandb'}, without network: "
            "`wandb sync` sends them",
        )

    def _protected(self, action: Callable[[], None]) -> None:
        # Third-party code, of any version: no error of it may fail the job.
        try:
            action()
        except Exception as error:
            _log.exception("Weights & Biases failed.")
            self._runs = []
            self._report("warn", f"Metrics for Weights & Biases are no longer written: {error}")
