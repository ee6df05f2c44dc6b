"""The process that runs one job: claims it, keeps its lease, stops when told to.

    python -m emojitune.jobs.worker JOB_ID WORKER < settings.json

WORKER is the name under which it holds the job. The settings come as one line on standard input,
which then stays open: when it ends, the server is gone, and the worker puts its job back into the
queue and goes too. The next server goes on from the last checkpoint.

All that a worker writes is fenced: in the transaction of each write the job must still be its own.
"""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from emojitune.errors import InvalidStateError, StorageError, TrainingError
from emojitune.jobs import deaths, runner, states
from emojitune.jobs.failing import fail
from emojitune.jobs.hold import LEASE_SECONDS, Hold, Interrupted, end_process
from emojitune.jobs.run_lock import only_process
from emojitune.jobs.stores import stores_of
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseStore, only_while_held
from emojitune.store.projects import EVERY_PROJECT

# A training takes what the machine has left: someone waits for each reply, nobody for a step.
_NICE = 5

_log = logging.getLogger(__name__)


class Worker:
    """One process's work on one job."""

    def __init__(self, job_id: str, name: str, settings: Settings) -> None:
        database = open_database(settings.home)
        # For whose turn it is; what is written is fenced, and of the job's project.
        self._jobs = JobStore(database, EVERY_PROJECT)
        self._leases = LeaseStore(database)
        fenced = database.guarded(only_while_held(job_id, name))
        self._stores = stores_of(fenced, self._jobs.get(job_id).project, settings)
        self._job_id = job_id
        self._name = name
        self._settings = settings
        self._hold = Hold(self._leases, job_id, name, self._end)

    def stop(self) -> None:
        """Ask the job to stop behind its next checkpoint."""
        self._hold.stop()

    def work(self) -> None:
        """Take the job as far as it can go now."""
        if not self._leases.claim(self._job_id, self._name, LEASE_SECONDS):
            return
        try:
            with self._hold:
                self._advance()
        except Interrupted:
            self._requeue()
        except InvalidStateError:
            _log.info("The job was changed from outside; nothing is left to do for it.")
        except StorageError:
            raise  # what could not be written now cannot be told now: the server will
        except Exception:
            _log.exception("The job failed in a way that nobody foresaw.")
            self._give_up()
        finally:
            self._leases.release(self._job_id, self._name)

    def _advance(self) -> None:
        jobs = self._stores.jobs
        if jobs.get(self._job_id).status == "validating_files":
            runner.validate(jobs.get(self._job_id), self._stores)
        job = jobs.get(self._job_id)
        if job.status == "running" or (job.status == "queued" and self._is_next()):
            runner.run(job, self._stores, self._settings, self._hold)

    def _is_next(self) -> bool:
        """Whether a queued job may start now: first come, first served, so many at a time."""
        unfinished = self._jobs.unfinished()
        running = sum(job.status == "running" for job in unfinished)
        free = self._settings.max_running_jobs - running
        queued = [job.id for job in unfinished if job.status == "queued"]
        return self._job_id in queued[: max(0, free)]

    def _give_up(self) -> None:
        job = self._stores.jobs.get(self._job_id)
        if job.status in states.TERMINAL:
            return
        message = (
            "The job failed due to an internal error. The last lines of "
            f"{log_file(self._settings, job.id)} say which; create the job again when it is mended."
        )
        fail(job, self._stores, TrainingError(message, code="server_error"))

    def _requeue(self) -> None:
        jobs = self._stores.jobs
        try:
            if jobs.get(self._job_id).status == "running":  # and not paused since
                jobs.transition(self._job_id, "queued", sources=["running"])
        except InvalidStateError:
            _log.info("The job ended meanwhile, or is another worker's now.")

    def _end(self) -> None:
        try:
            self._requeue()
            self._leases.release(self._job_id, self._name)
        finally:  # else the next server would find out from the lock
            end_process()


def log_file(settings: Settings, job_id: str) -> Path:
    """Where a job's worker writes what it prints."""
    return settings.runs / job_id / "worker.log"


def main() -> None:
    """Run the job named on the command line with the settings on standard input."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    os.nice(_NICE)
    job_id, name = sys.argv[1:3]
    settings = Settings.model_validate_json(sys.stdin.readline())
    with only_process(settings.runs / job_id):
        worker = Worker(job_id, name, settings)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
        threading.Thread(target=_stop_with_server, args=[worker], daemon=True).start()
        try:
            worker.work()
        except StorageError as error:
            if error.code != "disk_full":
                raise
            _log.error(error.message)
            sys.exit(deaths.DISK_FULL)


def _stop_with_server(worker: Worker) -> None:
    sys.stdin.read()
    worker.stop()


if __name__ == "__main__":
    main()
