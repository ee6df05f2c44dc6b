"""Leases on jobs of all projects: which worker holds which, and until when; and fencing by them.

A lease is two columns of the job's row, so the transaction of a write can check it itself.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, or_

from emojitune.errors import InvalidStateError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.scope import EVERY_PROJECT, ScopedTable

_jobs = tables.jobs


class LeaseLostError(InvalidStateError):
    """A write for a job that another worker holds by now, or that was stopped: nothing was kept."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's lease on a job, which ends by itself at `expires_at` (unix seconds)."""

    job_id: str
    worker: str
    expires_at: float


class LeaseStore:
    """The leases of every project's jobs, in the rows of `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = ScopedTable(_jobs, EVERY_PROJECT)

    def claim(self, job_id: str, worker: str, seconds: float) -> bool:
        """Lease a job to `worker` unless another one holds it; False if so."""
        free = or_(
            _jobs.c.lease_expires_at.is_(None),
            _jobs.c.lease_expires_at <= self._database.clock(),
            _jobs.c.worker == worker,
        )
        return self._write(job_id, free, worker, self._database.clock() + seconds)

    def renew(self, job_id: str, worker: str, seconds: float) -> bool:
        """Extend a lease; False when it is no longer `worker`'s."""
        return self._write(
            job_id, _jobs.c.worker == worker, worker, self._database.clock() + seconds
        )

    def release(self, job_id: str, worker: str) -> None:
        """Give a lease back, if it is still `worker`'s."""
        self._write(job_id, _jobs.c.worker == worker, None, None)

    def all(self) -> Sequence[Lease]:
        """Every lease that was not released, expired ones too."""
        query = self._rows.select(_jobs.c.id, _jobs.c.worker, _jobs.c.lease_expires_at)
        with self._database.read() as connection:
            rows = connection.execute(query.where(_jobs.c.worker.is_not(None)))
            return [Lease(*row) for row in rows]

    def leased(self) -> set[str]:
        """The ids of the jobs that some worker holds now."""
        return {lease.job_id for lease in self.all() if not self._is_expired(lease)}

    def expired(self) -> set[str]:
        """The workers that neither released their lease nor renewed it in time."""
        return {lease.worker for lease in self.all() if self._is_expired(lease)}

    def status_for(self, job_id: str, worker: str) -> str | None:
        """The status of a job that `worker` holds; None when it no longer does."""
        statuses = self._rows.select(_jobs.c.status)
        query = statuses.where(_jobs.c.id == job_id, _jobs.c.worker == worker)
        with self._database.read() as connection:
            status: str | None = connection.scalar(query)
            return status

    def _is_expired(self, lease: Lease) -> bool:
        return lease.expires_at <= self._database.clock()

    def fenced(self, job_id: str, worker: str, *, statuses: Collection[str]) -> Database:
        """The database for `worker`'s writes: it refuses a transaction unless the worker holds the
        job, in one of these statuses. So a cancelled or paused job gets no more writes.

        Transactions raise:
            LeaseLostError: Another worker has the job by now, or its status is another one.
        """
        status_held = self._rows.select(_jobs.c.status).where(
            _jobs.c.id == job_id, _jobs.c.worker == worker
        )

        def guard(connection: Connection) -> None:
            status = connection.scalar(status_held)
            if status is None:
                raise LeaseLostError(f"{worker} no longer holds {job_id}: another worker has it.")
            if status not in statuses:
                raise LeaseLostError(
                    f"{worker} may not write for {job_id} any more: it is {status}."
                )

        return self._database.guarded(guard)

    @contextmanager
    def fence(self, job_id: str, worker: str, *, statuses: Collection[str]) -> Iterator[None]:
        """A block in which `worker` holds a job in one of these statuses, for changes outside the
        database: until it ends, no other process takes the job or changes its status.

        Raises:
            LeaseLostError: The worker does not hold the job.
        """
        with self.fenced(job_id, worker, statuses=statuses).transaction():
            yield

    def _write(
        self, job_id: str, condition: ColumnElement[bool], worker: str | None, until: float | None
    ) -> bool:
        statement = (
            self._rows.update()
            .where(_jobs.c.id == job_id, condition)
            .values(worker=worker, lease_expires_at=until)
        )
        with self._database.transaction() as connection:
            return connection.execute(statement).rowcount == 1
