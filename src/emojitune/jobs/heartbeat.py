"""A worker's hold on its job: kept up by a thread, which also sees when the job is to stop.

Nothing is lost when a process ends at any moment. So a main thread that is deep in an import, a
download or a long step, and does not hear in time that it should stop, is ended by force.
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
_RENEW_EVERY = 5.0
_LOOK_EVERY = 0.5
_TO_SAVE = 5.0  # seconds to the next checkpoint for a job that is to go on later
_TO_LEAVE = 1.0  # and for one that is not


_log = logging.getLogger(__name__)


class Heartbeat:
    """The hold of `worker` on a job, as a Control; a context in which its thread runs."""

    def __init__(
        self, leases: LeaseStore, job_id: str, worker: str, end: Callable[[], None]
    ) -> None:
        """`end` gives the job back and ends this process; called by the thread."""
        self._leases = leases
        self._job_id = job_id
        self._worker = worker
        self._end = end
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._closed = threading.Event()
        self._ran = False
        self._renewed = time.monotonic()
        self._told = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def stop(self) -> None:
        """The job is to be left behind its next checkpoint."""
        self._stop.set()

    def check(self) -> None:
        if self._lost.is_set():
            raise Interrupted

    def stopping(self) -> bool:
        return self._stop.is_set()

    def fence(self, statuses: Collection[str]) -> AbstractContextManager[object]:
        return self._leases.fence(self._job_id, self._worker, statuses=statuses)

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY):
            try:
                self._look()
                self._renew()
            except StorageError:  # a full disk, say: the next look may succeed
                _log.exception("The job's row could not be read or written.")
            self._end_if_deaf()

    def _look(self) -> None:
        status = self._leases.status_for(self._job_id, self._worker)
        if status is None or status in states.JOB.terminal:
            self._lost.set()
        elif status == "paused" or (self._ran and status != "running"):
            self._stop.set()
        self._ran = self._ran or status == "running"

    def _renew(self) -> None:
        clock = time.monotonic()
        if clock - self._renewed > _RENEW_EVERY and not self._lost.is_set():
            self._leases.renew(self._job_id, self._worker, LEASE_SECONDS)
            self._renewed = clock

    def _end_if_deaf(self) -> None:
        if not (self._lost.is_set() or self._stop.is_set()):
            return
        self._told = self._told or time.monotonic()
        patience = _TO_LEAVE if self._lost.is_set() else _TO_SAVE
        if time.monotonic() - self._told > patience and not self._closed.is_set():
            self._end()


def end_process() -> None:
    """End this process now: no handler, no waiting for threads or libraries."""
    os._exit(0)
