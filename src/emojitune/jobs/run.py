"""A job as the pipeline's steps take it: with its stores, the settings, and who may stop it."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emojitune.jobs.job_log import JobLog
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores


class Interrupted(Exception):
    """The job stops here: it was cancelled or paused, or its process has to end."""


class Control(Protocol):
    """Says when a running job has to stop, and fences the folders that it makes."""

    def check(self) -> None:
        """Raise Interrupted when the job is to be left at once, without another event."""
        ...

    def stop(self) -> None:
        """Have the job left after its next checkpoint."""
        ...

    def stopping(self) -> bool:
        """Whether the job is to be left after its next checkpoint."""
        ...

    def fence(self, statuses: Collection[str]) -> AbstractContextManager[object]:
        """Entered while a folder appears; raises LeaseLostError where another worker has the job
        by now, or its status is none of these."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """One job's way through the pipeline in this process."""

    job: Job
    stores: Stores
    settings: Settings
    control: Control

    @property
    def log(self) -> JobLog:
        """The log that takes the run's events."""
        return JobLog(self.job.id, self.stores)

    @property
    def folder(self) -> Path:
        """The run's own folder, with its checkpoints."""
        return self.settings.runs / self.job.id

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints that the run resumes from."""
        return self.folder / "checkpoints"

    def leave_if_stopping(self) -> None:
        """Raise Interrupted when the job has to stop, now or after its next checkpoint."""
        self.control.check()
        if self.control.stopping():
            raise Interrupted
