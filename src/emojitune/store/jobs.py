"""Fine-tuning jobs with their events and checkpoints.

Knows how a status is changed safely, not which changes make sense: that is `jobs/states.py`.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, delete, exists, func, select
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from emojitune.errors import InvalidStateError, NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.ids import new_id
from emojitune.store.pagination import Page, read_page
from emojitune.store.scope import Project, ScopedTable

_jobs, _events, _checkpoints = tables.jobs, tables.events, tables.checkpoints

FINISHED = ("succeeded", "failed", "cancelled")
JOB_PREFIX = "ftjob-"
_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed."""

    code: str
    message: str
    param: str | None


@dataclass(frozen=True, slots=True)
class Job:
    """A fine-tuning job. `hyperparameters` are those requested until it runs, then those used."""

    id: str
    project: str
    created_at: int
    finished_at: int | None
    status: str
    model: str
    training_file: str
    validation_file: str | None
    suffix: str | None
    seed: int
    hyperparameters: dict[str, Any]
    method: dict[str, Any] | None
    metadata: dict[str, str] | None
    integrations: tuple[dict[str, Any], ...]
    error: JobError | None
    fine_tuned_model: str | None
    trained_tokens: int | None
    estimated_finish: int | None
    result_files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job; `data` holds the numbers of a metrics event."""

    id: str
    created_at: int
    level: str
    type: str
    message: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JobCheckpoint:
    """A model that a job made before its end."""

    id: str
    job_id: str
    created_at: int
    model: str
    step: int
    metrics: dict[str, Any]


class JobStore:
    """A project's jobs as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = ScopedTable(_jobs, project)

    def create(
        self,
        *,
        model: str,
        training_file: str,
        validation_file: str | None = None,
        suffix: str | None = None,
        seed: int | None = None,
        hyperparameters: Mapping[str, Any],
        method: Mapping[str, Any] | None = None,
        metadata: Mapping[str, str] | None = None,
        integrations: Sequence[Mapping[str, Any]] = (),
        job_id: str | None = None,
    ) -> Job:
        """Create a job that waits for its files to be validated, with its first two events.

        With a `job_id` that exists, nothing is created and the job of that id is returned.
        """
        job_id = job_id or new_id(JOB_PREFIX)
        row = {
            "id": job_id,
            "created_at": self._database.now(),
            "status": "validating_files",
            "model": model,
            "training_file": training_file,
            "validation_file": validation_file,
            "suffix": suffix,
            "seed": secrets.randbelow(_LARGEST_SEED) if seed is None else seed,
            "hyperparameters": dict(hyperparameters),
            "method": method,
            "metadata": metadata,
            "integrations": list(integrations),
            "result_files": [],
        }
        validating = f"Validating training file: {training_file}"
        if validation_file:
            validating += f" and validation file: {validation_file}"
        with self._database.transaction() as connection:
            made = connection.execute(self._rows.insert(row).on_conflict_do_nothing())
            if not made.rowcount:
                return self._get(connection, job_id)
            self._add_event(connection, job_id, f"Created fine-tuning job: {job_id}", key="created")
            self._add_event(connection, job_id, validating, key="validating")
            return self._get(connection, job_id)

    def get(self, job_id: str) -> Job:
        """The job of this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            return self._get(connection, job_id)

    def list(
        self,
        after: str | None = None,
        limit: int = 20,
        metadata: Mapping[str, str] | None = None,
        *,
        without_metadata: bool = False,
    ) -> Page[Job]:
        """Jobs, the newest first: all, or those with every pair of `metadata`, or those without."""
        query = self._rows.select().where(
            *(has_pair(_jobs.c.metadata, *pair) for pair in (metadata or {}).items())
        )
        if without_metadata:
            query = query.where(_jobs.c.metadata.is_(None))
        with self._database.read() as connection:
            return read_page(connection, _jobs, query, _job, after=after, limit=limit)

    def unfinished(self) -> Sequence[Job]:
        """Every job that has not ended, the oldest first."""
        unfinished = _jobs.c.status.not_in(FINISHED)
        query = self._rows.select().where(unfinished).order_by(_jobs.c.number)
        with self._database.read() as connection:
            return [_job(row) for row in connection.execute(query)]

    def statuses(self) -> dict[str, str]:
        """The status of every job by its id."""
        with self._database.read() as connection:
            rows = connection.execute(self._rows.select(_jobs.c.id, _jobs.c.status))
            return {row.id: row.status for row in rows}

    def transition(
        self, job_id: str, to: str, /, *, sources: Collection[str], **changes: Any
    ) -> Job:
        """Move a job to the status `to`, with other columns, if its status is one of `sources`.

        Raises:
            InvalidStateError: It is not: another request was faster, or this one makes no sense.
        """
        with self._database.transaction() as connection:
            status = self._get(connection, job_id).status
            if status not in sources:
                raise InvalidStateError(
                    f"Job {job_id} cannot become {to}: only a job that is "
                    f"{_either(sources)} can, and this one is {status}."
                )
            return self._change(connection, job_id, {**changes, "status": to})

    def update(self, job_id: str, **changes: Any) -> Job:
        """Set columns other than the status."""
        assert "status" not in changes, "a status changes by `transition` only"
        with self._database.transaction() as connection:
            return self._change(connection, job_id, changes)

    def add_event(
        self,
        job_id: str,
        message: str,
        *,
        level: Literal["info", "warn", "error"] = "info",
        type: Literal["message", "metrics"] = "message",
        data: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        """Add an event, unless the job has one with this `key`."""
        with self._database.transaction() as connection:
            self._add_event(connection, job_id, message, level=level, type=type, data=data, key=key)

    def events(self, job_id: str, after: str | None = None, limit: int = 20) -> Page[JobEvent]:
        """A job's events, the newest first."""
        query = select(_events).where(_events.c.job_id == job_id)
        with self._database.read() as connection:
            self._get(connection, job_id)
            return read_page(connection, _events, query, _event, after=after, limit=limit)

    def event(self, job_id: str, key: str) -> JobEvent | None:
        """The event with this key, if there is one."""
        query = select(_events).where(_events.c.job_id == job_id, _events.c.key == key)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _event(row)

    def events_since_step(self, job_id: str, key_prefix: str) -> int:
        """How many events whose key begins so came after the last metrics event."""
        of_job = _events.c.job_id == job_id
        last_step = select(func.coalesce(func.max(_events.c.number), 0)).where(
            of_job, _events.c.type == "metrics"
        )
        query = select(func.count()).where(
            of_job,
            _events.c.key.startswith(key_prefix, autoescape=True),
            _events.c.number > last_step.scalar_subquery(),
        )
        with self._database.read() as connection:
            return connection.scalar(query) or 0

    def add_checkpoint(
        self, job_id: str, *, model: str, step: int, metrics: Mapping[str, Any]
    ) -> None:
        """Add a checkpoint; a second one for the same step is ignored."""
        row = {
            "id": new_id("ftckpt_"),
            "job_id": job_id,
            "created_at": self._database.now(),
            "model": model,
            "step": step,
            "metrics": dict(metrics),
        }
        with self._database.transaction() as connection:
            connection.execute(insert_or_ignore(_checkpoints).values(row).on_conflict_do_nothing())

    def checkpoints(
        self, job_id: str, after: str | None = None, limit: int = 10
    ) -> Page[JobCheckpoint]:
        """A job's checkpoints, the last step first."""
        query = select(_checkpoints).where(_checkpoints.c.job_id == job_id)
        with self._database.read() as connection:
            self._get(connection, job_id)
            return read_page(connection, _checkpoints, query, _checkpoint, after=after, limit=limit)

    def drop_checkpoints(self, job_id: str, *, keep: int) -> Sequence[JobCheckpoint]:
        """Delete a job's checkpoints but the `keep` of the last steps; returns the deleted ones."""
        query = select(_checkpoints).where(_checkpoints.c.job_id == job_id)
        with self._database.transaction() as connection:
            rows = connection.execute(query.order_by(_checkpoints.c.step.desc())).all()
            old = [_checkpoint(row) for row in rows[keep:]]
            ids = [checkpoint.id for checkpoint in old]
            connection.execute(delete(_checkpoints).where(_checkpoints.c.id.in_(ids)))
        return old

    def _get(self, connection: Connection, job_id: str) -> Job:
        query = self._rows.select().where(_jobs.c.id == job_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(
                f"Could not find fine tune: {job_id}",
                code="fine_tune_not_found",
                param="fine_tune_id",
            )
        return _job(row)

    def _change(self, connection: Connection, job_id: str, changes: dict[str, Any]) -> Job:
        if isinstance(changes.get("error"), JobError):
            changes["error"] = asdict(changes["error"])
        statement = self._rows.update().where(_jobs.c.id == job_id)
        connection.execute(statement.values(changes))
        return self._get(connection, job_id)

    def _add_event(
        self,
        connection: Connection,
        job_id: str,
        message: str,
        *,
        level: str = "info",
        type: str = "message",
        data: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        row = {
            "id": new_id("ftevent-"),
            "job_id": job_id,
            "created_at": self._database.now(),
            "level": level,
            "type": type,
            "message": message,
            "data": dict(data or {}),
            "key": key,
        }
        connection.execute(insert_or_ignore(_events).values(row).on_conflict_do_nothing())


def has_pair(column: ColumnElement[Any], key: str, value: str) -> ColumnElement[bool]:
    """Whether a column of metadata has this pair of key and value."""
    # Key and value stay bound parameters: a JSON path could not hold every key.
    pair = func.json_each(column).table_valued("key", "value")
    return exists(select(1).select_from(pair).where(pair.c.key == key, pair.c.value == value))


def _job(row: Row[Any]) -> Job:
    fields = dict(row._mapping)
    for internal in ("number", "worker", "lease_expires_at"):
        del fields[internal]
    fields["integrations"] = tuple(row.integrations)
    fields["result_files"] = tuple(row.result_files)
    fields["error"] = JobError(**row.error) if row.error else None
    return Job(**fields)


def _event(row: Row[Any]) -> JobEvent:
    return JobEvent(row.id, row.created_at, row.level, row.type, row.message, row.data)


def _checkpoint(row: Row[Any]) -> JobCheckpoint:
    return JobCheckpoint(row.id, row.job_id, row.created_at, row.model, row.step, row.metrics)


def _either(words: Collection[str]) -> str:
    return " or ".join(sorted(words))
