"""Starts a worker process for each job whose turn it is, and notices when one crashes or hangs.

Runs in a thread of the server. Everything that it decides it reads from the database: a job left by
a server that died looks like any other job without a worker.
"""

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from emojitune.disk import disk_errors, make_private_folder, open_private
from emojitune.errors import StorageError
from emojitune.jobs import failure, states
from emojitune.jobs.process_lock import kill_holder
from emojitune.jobs.worker import log_file
from emojitune.models import torch_environment
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.jobs import JOB_PREFIX, Job
from emojitune.store.scope import EVERY_PROJECT
from emojitune.store.stores import stores_of

_POLL_SECONDS = 1.0
_STOP_SECONDS = 10.0  # in which workers have to put their jobs back into the queue
_EXPIRED_SECONDS = 5.0  # longer than a worker needs to renew its lease when a laptop wakes up
_MAX_VALIDATIONS = 2

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    worker: str
    trains: bool
    oom_kills: int  # on this machine, when it was started
    expired_at: float | None = None  # on the monotonic clock


class Dispatcher:
    """Runs the jobs of one home folder while it is started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: dict[str, _Child] = {}
        self._changed = threading.Event()
        self._stopping = False
        self._failing = False
        self._swept = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to run jobs, those left by an earlier server too."""
        self._database = open_database(self._settings.home)
        self._stores = stores_of(self._database, EVERY_PROJECT, self._settings)
        self._end_orphans()
        self._sweep()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Poll now: a job was created or changed."""
        self._changed.set()

    def request_stop(self) -> None:
        """Have the workers save and exit, and start no more; `stop` then waits for them."""
        self._stopping = True
        self._changed.set()
        for child in list(self._children.values()):
            _close_input(child.process)

    def stop(self) -> None:
        """End the workers; each puts its job back into the queue first."""
        self.request_stop()
        if self._thread is not None:
            self._thread.join()
        self.request_stop()  # also of workers that were started meanwhile
        deadline = time.monotonic() + _STOP_SECONDS
        for job_id, child in self._children.items():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                # Otherwise the job's row would say that a worker still has it. The next server
                # finds out by itself.
                with suppress(StorageError):
                    self._stores.leases.release(job_id, child.worker)

    def _end_orphans(self) -> None:
        """End workers of earlier servers: this home has no other server now."""
        for lease in self._stores.leases.all():
            if kill_holder(self._settings.runs / lease.job_id):
                _log.warning("Ended a worker of job %s that an earlier server left.", lease.job_id)
            self._stores.leases.release(lease.job_id, lease.worker)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._poll()
                self._failing = False
            except StorageError as error:  # a full disk, for example: the next poll may succeed
                self._log_once("Jobs wait, and none is started: %s", error)
            except Exception as error:
                self._log_once("The dispatcher could not look after its jobs.", exc_info=error)
            if self._changed.wait(_POLL_SECONDS):
                self._changed.clear()
                self._swept = False

    def _log_once(self, message: str, *args: object, exc_info: Exception | None = None) -> None:
        """Log an error at the first failing poll, not every second."""
        if not self._failing:
            _log.error(message, *args, exc_info=exc_info)
        self._failing = True

    def _poll(self) -> None:
        self._database.require_in_place()
        self._reap()
        self._kill_unresponsive()
        self._sweep()
        unfinished = self._stores.jobs.unfinished()
        leased = self._stores.leases.leased()
        free = [job for job in unfinished if job.id not in leased and job.id not in self._children]
        validating = sum(not child.trains for child in self._children.values())
        waiting = [job for job in free if job.status == "validating_files"]
        for job in waiting[: max(0, _MAX_VALIDATIONS - validating)]:
            self._spawn(job, trains=False)
        # A running job without a lease lost its worker; it goes before those in the queue.
        training = {id for id, child in self._children.items() if child.trains}
        training |= {job.id for job in unfinished if job.status == "running" and job not in free}
        ready = [job for job in free if job.status == "running"]
        ready += [job for job in free if job.status == "queued"]
        for job in ready[: max(0, self._settings.max_running_jobs - len(training))]:
            self._spawn(job, trains=True)

    def _spawn(self, job: Job, *, trains: bool) -> None:
        log = log_file(self._settings, job.id)
        kill_holder(log.parent)
        worker = f"worker-{secrets.token_hex(8)}"
        with disk_errors(log):
            make_private_folder(log.parent)
            output = open_private(log, "ab")
        with output:
            process = subprocess.Popen(
                [sys.executable, "-m", "emojitune.jobs.worker", job.id, worker],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**torch_environment.TRAINING_ENVIRONMENT, **os.environ},
                # Its own group: Ctrl-C in the terminal is the server's to handle.
                start_new_session=True,
            )
        self._children[job.id] = _Child(process, worker, trains, failure.oom_kills())
        threading.Thread(target=self._wake_at_exit, args=[process], daemon=True).start()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once: the next poll finds it
            settings = self._settings.model_dump_json(exclude={"api_key"})
            process.stdin.write(settings.encode() + b"\n")
            process.stdin.flush()

    def _wake_at_exit(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        self._changed.set()

    def _reap(self) -> None:
        for job_id, child in list(self._children.items()):
            status = child.process.poll()
            if status is None:
                continue
            _close_input(child.process)
            # In one transaction, and before the child is forgotten: while this cannot be written,
            # no other worker is started in its place.
            with self._stores.transaction():
                self._stores.leases.release(job_id, child.worker)
                job = self._stores.jobs.get(job_id)
                if status != 0 and job.status not in states.JOB.terminal:
                    _log.warning("The process of job %s ended with status %d.", job_id, status)
                    out_of_memory = (
                        status == -signal.SIGKILL and failure.oom_kills() > child.oom_kills
                    )
                    log = log_file(self._settings, job_id)
                    crash = failure.Crash(child.worker, status, out_of_memory, log)
                    failure.recover(job, self._stores, crash)
            del self._children[job_id]

    def _sweep(self) -> None:
        """Remove the checkpoints of jobs that have ended, after a change."""
        if self._swept:
            return
        unfinished = {job.id for job in self._stores.jobs.unfinished()}
        for checkpoints in self._settings.runs.glob(f"{JOB_PREFIX}*/checkpoints"):
            if checkpoints.parent.name not in unfinished | self._children.keys():
                shutil.rmtree(checkpoints, ignore_errors=True)
        self._swept = True

    def _kill_unresponsive(self) -> None:
        """Kill workers whose lease expired: they hang, and react to nothing else."""
        clock, expired = time.monotonic(), self._stores.leases.expired()
        for job_id, child in self._children.items():
            if child.worker not in expired:
                child.expired_at = None
            elif child.expired_at is None:
                child.expired_at = clock
            elif clock - child.expired_at > _EXPIRED_SECONDS:
                _log.warning("The process of job %s no longer answers: it is ended.", job_id)
                child.process.kill()


def _close_input(process: "subprocess.Popen[bytes]") -> None:
    with suppress(BrokenPipeError):  # it had died before it read its settings
        if process.stdin is not None:
            process.stdin.close()
