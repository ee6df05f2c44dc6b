"""A worker's heartbeat: a thread renews the lease on its job, and sees when the job has to stop.

Nothing is lost when a process ends at any moment. So when the main thread does not stop in time,
deep in an import, a download or a long step, this thread ends the process.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager

from emojitune.errors import StorageError
from emojitune.jobs import states
from emojitune.jobs.run import Interrupted
from emojitune.store.leases import LeaseStore

LEASE_SECONDS = 20.0
_RENEW_SECONDS = 5.0
_POLL_SECONDS = 0.5
_SAVE_SECONDS = 5.0  # time to the next checkpoint, for a job that can be resumed later
_LEAVE_SECONDS = 1.0  # and for one that cannot

_log = logging.getLogger(__name__)


class Heartbeat:
    """The heartbeat of `worker` for its job, as a Control; its thread runs inside the context."""

    def __init__(
        self, leases: LeaseStore, job_id: str, worker: str, end: Callable[[], None]
    ) -> None:
        """`end` puts the job back into the queue and ends this process; the thread calls it."""
        self._leases = leases
        self._job_id = job_id
        self._worker = worker
        self._end = end
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._ran = False
        self._renewed = time.monotonic()
        self._noticed = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def stop(self) -> None:
        """Have the job left after its next checkpoint."""
        self._stop.set()

    def check(self) -> None:
        if self._lost.is_set():
            raise Interrupted

    def stopping(self) -> bool:
        return self._stop.is_set()

    def fence(self, statuses: Collection[str]) -> AbstractContextManager[object]:
        return self._leases.fence(self._job_id, self._worker, statuses=statuses)

    def _watch(self) -> None:
        while not self._closed.wait(_POLL_SECONDS):
            try:
                self._poll()
                self._renew()
            except StorageError:  # a full disk, for example: the next poll may succeed
                _log.exception("The job's row could not be read or written.")
            self._end_if_unresponsive()

    def _poll(self) -> None:
        status = self._leases.status_for(self._job_id, self._worker)
        if status is None or status in states.JOB.terminal:
            self._lost.set()
        elif status == "paused" or (self._ran and status != "running"):
            self._stop.set()
        self._ran = self._ran or status == "running"

    def _renew(self) -> None:
        clock = time.monotonic()
        if clock - self._renewed > _RENEW_SECONDS and not self._lost.is_set():
            self._leases.renew(self._job_id, self._worker, LEASE_SECONDS)
            self._renewed = clock

    def _end_if_unresponsive(self) -> None:
        if not (self._lost.is_set() or self._stop.is_set()):
            return
        self._noticed = self._noticed or time.monotonic()
        patience = _LEAVE_SECONDS if self._lost.is_set() else _SAVE_SECONDS
        if time.monotonic() - self._noticed > patience and not self._closed.is_set():
            self._end()


def end_process() -> None:
    """End this process now: no handler, no waiting for threads or libraries."""
    os._exit(0)
