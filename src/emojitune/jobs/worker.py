"""The process that runs one job: claims it, keeps its lease, stops when told to.

    python -m emojitune.jobs.worker JOB_ID < settings.json

The settings come as one line on standard input, which then stays open: when it ends, the server
is gone, and the worker puts its job back into the queue and goes too. The next server goes on from
the last checkpoint.
"""

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from emojitune.errors import InvalidStateError, TrainingError
from emojitune.jobs import runner, states
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore
from emojitune.store.projects import EVERY_PROJECT, Project

LEASE_SECONDS = 20.0
_CHECK_EVERY = 0.5  # seconds between looks at the job's row
# A training takes what the machine has left: someone waits for each reply, nobody for a step.
_NICE = 5

_log = logging.getLogger(__name__)


class Worker:
    """One process's hold on one job."""

    def __init__(self, job_id: str, settings: Settings) -> None:
        # Whose turn it is depends on the jobs of all; what a job reads and makes is its project's.
        self._all_jobs = open_stores(settings, EVERY_PROJECT).jobs
        self._stores = open_stores(settings, self._all_jobs.get(job_id).project)
        self._job_id = job_id
        self._settings = settings
        self._name = worker_name(os.getpid())
        self._stopping = threading.Event()
        self._checked = 0.0

    def stop(self) -> None:
        """Ask the job to stop at its next step."""
        self._stopping.set()

    def work(self) -> None:
        """Take the job as far as it can go now."""
        jobs = self._stores.jobs
        if not jobs.claim(self._job_id, self._name, LEASE_SECONDS):
            return
        try:
            self._advance()
        except runner.Interrupted:
            self._requeue()
        except InvalidStateError:
            _log.info("The job was changed from outside; nothing is left to do for it.")
        except Exception:
            _log.exception("The job failed in a way that nobody foresaw.")
            self._give_up()
        finally:
            jobs.release(self._job_id, self._name)

    def _advance(self) -> None:
        jobs = self._stores.jobs
        if jobs.get(self._job_id).status == "validating_files":
            runner.validate(jobs.get(self._job_id), self._stores)
        job = jobs.get(self._job_id)
        if job.status == "running" or (job.status == "queued" and self._is_next()):
            runner.run(job, self._stores, self._settings, self._check)

    def _is_next(self) -> bool:
        """Whether a queued job may start now: first come, first served, so many at a time."""
        unfinished = self._all_jobs.unfinished()
        running = sum(job.status == "running" for job in unfinished)
        free = self._settings.max_running_jobs - running
        queued = [job.id for job in unfinished if job.status == "queued"]
        return self._job_id in queued[: max(0, free)]

    def _check(self) -> None:
        """Keep the lease; raise Interrupted when the job is no longer to run."""
        if self._stopping.is_set():
            raise runner.Interrupted
        if time.monotonic() - self._checked < _CHECK_EVERY:
            return
        self._checked = time.monotonic()
        jobs = self._stores.jobs
        mine = jobs.renew(self._job_id, self._name, LEASE_SECONDS)
        if not mine or jobs.get(self._job_id).status != "running":
            raise runner.Interrupted

    def _give_up(self) -> None:
        job = self._stores.jobs.get(self._job_id)
        if job.status in states.TERMINAL:
            return
        message = (
            "The job failed due to an internal error. The last lines of "
            f"{log_file(self._settings, job.id)} say which; create the job again when it is mended."
        )
        runner.fail(job, self._stores, TrainingError(message, code="server_error"))

    def _requeue(self) -> None:
        jobs = self._stores.jobs
        if jobs.get(self._job_id).status == "running":
            states.move(jobs, self._job_id, "queued")


def worker_name(pid: int) -> str:
    """Who holds a lease: the dispatcher must be able to release it for a worker that died."""
    return f"worker-{pid}"


def log_file(settings: Settings, job_id: str) -> Path:
    """Where a job's worker writes what it prints."""
    return settings.runs / job_id / "worker.log"


def open_stores(settings: Settings, project: Project) -> runner.Stores:
    """A project's stores in a home folder."""
    database = open_database(settings.home)
    return runner.Stores(
        files=FileStore(database, project, settings.files),
        jobs=JobStore(database, project),
        models=ModelStore(database, project),
    )


def main() -> None:
    """Run the job named on the command line with the settings on standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.nice(_NICE)
    settings = Settings.model_validate_json(sys.stdin.readline())
    worker = Worker(sys.argv[1], settings)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    threading.Thread(target=_stop_with_server, args=[worker], daemon=True).start()
    worker.work()


def _stop_with_server(worker: Worker) -> None:
    sys.stdin.read()
    worker.stop()


if __name__ == "__main__":
    main()
