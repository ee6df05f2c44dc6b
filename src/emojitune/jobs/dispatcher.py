"""Starts a worker process for each job whose turn it is, and notices when one dies.

Lives in a thread of the server. All that it decides, it reads from the database: a job that a dead
server left behind looks like any other whose lease has run out.
"""

import logging
import os
import subprocess
import sys
import threading
from dataclasses import dataclass

from emojitune.errors import TrainingError
from emojitune.jobs import runner, states
from emojitune.jobs.worker import log_file, open_stores, worker_name
from emojitune.models import torch_environment
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.projects import EVERY_PROJECT

_LOOK_EVERY = 1.0  # seconds
_STOP_WITHIN = 10.0  # seconds that workers have to put their jobs back
_MOST_DEATHS = 3
_MOST_VALIDATIONS = 2

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    trains: bool


class Dispatcher:
    """Runs the jobs of one home folder while it is started."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: dict[str, _Child] = {}
        self._deaths: dict[str, int] = {}
        self._changed = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look after jobs, those of an earlier server too."""
        self._stores = open_stores(self._settings, EVERY_PROJECT)
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now: a job was created or changed."""
        self._changed.set()

    def stop(self) -> None:
        """End the workers; each puts its job back into the queue first."""
        self._stopping = True
        self._changed.set()
        if self._thread is not None:
            self._thread.join()
        for child in self._children.values():
            _close_input(child.process)
        for job_id, child in self._children.items():
            try:
                child.process.wait(_STOP_WITHIN)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                # Else the next server would wait for the lease to run out.
                self._stores.jobs.release(job_id, worker_name(child.process.pid))

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._look()
            except Exception:  # a full disk, say: the next look may succeed
                _log.exception("The dispatcher could not look after its jobs.")
            self._changed.wait(_LOOK_EVERY)
            self._changed.clear()

    def _look(self) -> None:
        self._reap()
        unfinished = self._stores.jobs.unfinished()
        leased = self._stores.jobs.leased()
        free = [job for job in unfinished if job.id not in leased and job.id not in self._children]
        validating = sum(not child.trains for child in self._children.values())
        waiting = [job for job in free if job.status == "validating_files"]
        for job in waiting[: max(0, _MOST_VALIDATIONS - validating)]:
            self._spawn(job, trains=False)
        # A running job without a lease lost its process, and keeps its place before the queue.
        training = {id for id, child in self._children.items() if child.trains}
        training |= {job.id for job in unfinished if job.status == "running" and job not in free}
        ready = [job for job in free if job.status == "running"]
        ready += [job for job in free if job.status == "queued"]
        for job in ready[: max(0, self._settings.max_running_jobs - len(training))]:
            self._spawn(job, trains=True)

    def _spawn(self, job: Job, *, trains: bool) -> None:
        log = log_file(self._settings, job.id)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "emojitune.jobs.worker", job.id],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**torch_environment.TRAINING, **os.environ},
                # Its own group: Ctrl-C in the terminal is the server's to handle.
                start_new_session=True,
            )
        assert process.stdin is not None
        process.stdin.write(self._settings.model_dump_json(exclude={"api_key"}).encode() + b"\n")
        process.stdin.flush()
        self._children[job.id] = _Child(process, trains)
        threading.Thread(target=self._await, args=[process], daemon=True).start()

    def _await(self, process: "subprocess.Popen[bytes]") -> None:
        process.wait()
        self._changed.set()

    def _reap(self) -> None:
        for job_id, child in list(self._children.items()):
            status = child.process.poll()
            if status is None:
                continue
            del self._children[job_id]
            _close_input(child.process)
            self._stores.jobs.release(job_id, worker_name(child.process.pid))
            if status != 0:
                self._died(self._stores.jobs.get(job_id), status)

    def _died(self, job: Job, status: int) -> None:
        if job.status in states.TERMINAL:
            return
        deaths = self._deaths[job.id] = self._deaths.get(job.id, 0) + 1
        _log.warning("The process of job %s ended with status %d.", job.id, status)
        if deaths >= _MOST_DEATHS:
            message = (
                f"The job's process was ended {deaths} times (status {status}), most likely for "
                "want of memory. Free some, use a smaller batch_size, and create the job again; "
                f"its log is {log_file(self._settings, job.id)}."
            )
            runner.fail(job, self._stores, TrainingError(message, code="server_error"))
            return
        self._stores.jobs.add_event(
            job.id,
            f"The job's process ended unexpectedly (status {status}); it goes on from its last "
            "checkpoint",
            level="warn",
        )
        if job.status == "running":
            states.move(self._stores.jobs, job.id, "queued")


def _close_input(process: "subprocess.Popen[bytes]") -> None:
    try:
        if process.stdin is not None:
            process.stdin.close()
    except BrokenPipeError:  # it had died before it read its settings
        pass
