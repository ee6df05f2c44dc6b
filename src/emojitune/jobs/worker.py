"""The process that runs one job: claims it, keeps its lease, and stops on request.

    python -m emojitune.jobs.worker JOB_ID WORKER < settings.json

WORKER is the name on its lease. The settings come as one line on standard input, which then stays
open: when it closes, the server is gone, and the worker puts its job back into the queue and exits.
The next server resumes it from its last checkpoint.

Everything that a worker writes is fenced: in the transaction of each write it must still hold the
job, in the status that belongs to the step. Whoever cancels or pauses a job has the last word.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emojitune.errors import InvalidStateError, StorageError, TrainingError
from emojitune.jobs import failure, pipeline
from emojitune.jobs.heartbeat import LEASE_SECONDS, Heartbeat, end_process
from emojitune.jobs.process_lock import only_process
from emojitune.jobs.run import Interrupted
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseStore
from emojitune.store.scope import EVERY_PROJECT
from emojitune.store.stores import Stores, stores_of

# Requests come first: a client waits for each reply, and none for a step.
_NICE = 5

_log = logging.getLogger(__name__)


class Worker:
    """One process's work on one job."""

    def __init__(self, job_id: str, name: str, settings: Settings) -> None:
        self._database = open_database(settings.home)
        # To find whose turn it is; writes are fenced, and in the job's project.
        self._jobs = JobStore(self._database, EVERY_PROJECT)
        self._leases = LeaseStore(self._database)
        self._project = self._jobs.get(job_id).project
        self._job_id = job_id
        self._name = name
        self._settings = settings
        self._heartbeat = Heartbeat(self._leases, job_id, name, self._end)

    def stop(self) -> None:
        """Have the job left after its next checkpoint."""
        self._heartbeat.stop()

    def work(self) -> None:
        """Take the job as far as it can go now."""
        if not self._leases.claim(self._job_id, self._name, LEASE_SECONDS):
            return
        try:
            with self._heartbeat, _unless_stopped():
                self._advance()
        except Interrupted:
            self._requeue()
        except StorageError:
            raise  # nor could this be reported now: the server does
        except Exception:
            _log.exception("The job failed unexpectedly.")
            self._fail_unexpectedly()
        finally:
            self._leases.release(self._job_id, self._name)

    def _advance(self) -> None:
        job, files = self._jobs.get(self._job_id), None
        if job.status == "validating_files":
            files = pipeline.validate(job, self._fenced_stores(job.status))
            job = self._jobs.get(self._job_id)
        if job.status == "queued" and self._is_next():
            job = pipeline.start(job, self._fenced_stores(job.status))
        if job.status == "running":
            stores = self._fenced_stores(job.status)
            pipeline.run(job, stores, self._settings, self._heartbeat, files)

    def _fenced_stores(self, *statuses: str) -> Stores:
        """Stores of the job's project, for writes while it is held in one of these statuses."""
        fenced = self._leases.fenced(self._job_id, self._name, statuses=statuses)
        return stores_of(fenced, self._project, self._settings)

    def _is_next(self) -> bool:
        """Whether a queued job may start now: first in, first out, up to `max_running_jobs`."""
        unfinished = self._jobs.unfinished()
        running = sum(job.status == "running" for job in unfinished)
        free = self._settings.max_running_jobs - running
        queued = [job.id for job in unfinished if job.status == "queued"]
        return self._job_id in queued[: max(0, free)]

    def _fail_unexpectedly(self) -> None:
        message = (
            "The job failed due to an internal error. The last lines of "
            f"{log_file(self._settings, self._job_id)} say which; create the job again when it is "
            "mended."
        )
        stores = self._fenced_stores("validating_files", "queued", "running")
        with _unless_stopped():
            failure.fail(
                self._jobs.get(self._job_id), stores, TrainingError(message, code="server_error")
            )

    def _requeue(self) -> None:
        jobs = self._fenced_stores("running").jobs
        with _unless_stopped():
            jobs.transition(self._job_id, "queued", sources=["running"])

    def _end(self) -> None:
        try:
            self._requeue()
            self._leases.release(self._job_id, self._name)
        finally:  # otherwise the next server finds out from the lock
            end_process()


@contextmanager
def _unless_stopped() -> Iterator[None]:
    try:
        yield
    except InvalidStateError as error:
        _log.info("Nothing is left to do for the job here: %s", error)


def log_file(settings: Settings, job_id: str) -> Path:
    """The file with the output of a job's worker."""
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
            sys.exit(failure.DISK_FULL)


def _stop_with_server(worker: Worker) -> None:
    sys.stdin.read()
    worker.stop()


if __name__ == "__main__":
    main()
