"""Batches of requests, and the results of their lines until the output files are written.

Knows how a status is changed safely, not which changes make sense: that is `jobs/states.py`.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore

from emojitune.errors import InvalidStateError, NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.files import StoredFile
from emojitune.store.ids import new_id
from emojitune.store.pagination import Page, read_page
from emojitune.store.scope import Project, ScopedTable

_batches, _results = tables.batches, tables.batch_results

BATCH_PREFIX = "batch_"
FINISHED = ("completed", "failed", "expired", "cancelled")
_WINDOW_SECONDS = 24 * 3600
_READ_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens read and written by some requests."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
        }
        return TokenUsage(**sums)


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why an input file cannot be run."""

    code: str
    message: str
    param: str | None
    line: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch. `total`, `completed` and `failed` count its requests."""

    id: str
    project: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    model: str | None
    errors: tuple[BatchError, ...]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    total: int
    completed: int
    failed: int
    usage: TokenUsage
    metadata: dict[str, str] | None
    output_seconds: int | None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of one line of the input: a line of the output file, or of the error file."""

    line: int
    failed: bool
    content: str
    usage: TokenUsage = TokenUsage()


class BatchStore:
    """A project's batches as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = ScopedTable(_batches, project)

    def create(
        self,
        *,
        endpoint: str,
        input_file_id: str,
        completion_window: str,
        metadata: Mapping[str, str] | None = None,
        output_seconds: int | None = None,
        batch_id: str | None = None,
    ) -> Batch:
        """Create a batch whose input waits to be validated.

        With a `batch_id` that exists, nothing is created and the batch of that id is returned.
        """
        created_at, batch_id = self._database.now(), batch_id or new_id(BATCH_PREFIX)
        row = {
            "id": batch_id,
            "endpoint": endpoint,
            "input_file_id": input_file_id,
            "completion_window": completion_window,
            "status": "validating",
            "created_at": created_at,
            "expires_at": created_at + _WINDOW_SECONDS,
            "total": 0,
            "completed": 0,
            "failed": 0,
            "usage": asdict(TokenUsage()),
            "metadata": metadata,
            "output_seconds": output_seconds,
        }
        with self._database.transaction() as connection:
            connection.execute(self._rows.insert(row).on_conflict_do_nothing())
            return self._get(connection, batch_id)

    def get(self, batch_id: str) -> Batch:
        """The batch of this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            return self._get(connection, batch_id)

    def list(self, after: str | None = None, limit: int = 20) -> Page[Batch]:
        """Batches, the newest first."""
        with self._database.read() as connection:
            query = self._rows.select()
            return read_page(connection, _batches, query, _batch, after=after, limit=limit)

    def seconds_left(self, batch: Batch) -> float:
        """Seconds until a batch's completion window closes; negative when it has."""
        return batch.expires_at - self._database.clock()

    def unfinished(self) -> Sequence[str]:
        """The ids of all batches that have not ended, the oldest first."""
        query = self._rows.select(_batches.c.id).where(_batches.c.status.not_in(FINISHED))
        with self._database.read() as connection:
            return list(connection.scalars(query.order_by(_batches.c.number)))

    def transition(
        self, batch_id: str, to: str, /, *, sources: Collection[str], **changes: Any
    ) -> Batch:
        """Move a batch to the status `to`, with other columns, if its status is one of `sources`.

        Also stores the time.

        Raises:
            InvalidStateError: It is not: another request was faster, or this one makes no sense.
        """
        with self._database.transaction() as connection:
            status = self._get(connection, batch_id).status
            if status not in sources:
                raise InvalidStateError(
                    f"Batch {batch_id} cannot become {to}: only one that is "
                    f"{' or '.join(sorted(sources))} can, and this one is {status}."
                )
            if to in FINISHED:
                connection.execute(delete(_results).where(_results.c.batch_id == batch_id))
            stamped = {"status": to, f"{to}_at": self._database.now()}
            return self._change(connection, batch_id, {**changes, **stamped})

    def record(self, batch_id: str, results: Sequence[BatchResult]) -> None:
        """Store results and count them; a line that has a result keeps it, and counts once."""
        with self._database.transaction() as connection:
            new = [result for result in results if _keep(connection, batch_id, result)]
            batch = self._get(connection, batch_id)
            failed = sum(result.failed for result in new)
            usage = sum((result.usage for result in new), batch.usage)
            counts = {
                "completed": batch.completed + len(new) - failed,
                "failed": batch.failed + failed,
                "usage": usage,
            }
            self._change(connection, batch_id, counts)

    def completed_lines(self, batch_id: str) -> set[int]:
        """The lines of the input that have a result."""
        with self._database.read() as connection:
            done = select(_results.c.line).where(_results.c.batch_id == batch_id)
            return set(connection.scalars(done))

    def result_lines(self, batch_id: str, *, failed: bool) -> Iterator[str]:
        """The lines of the output or of the error file, in the order of the input."""
        query = select(_results.c.line, _results.c.content).where(
            _results.c.batch_id == batch_id, _results.c.failed == failed
        )
        last = 0
        while True:
            page = query.where(_results.c.line > last).order_by(_results.c.line)
            with self._database.read() as connection:
                rows = connection.execute(page.limit(_READ_AT_ONCE)).all()
            yield from (row.content for row in rows)
            if not rows:
                return
            last = rows[-1].line

    def set_output_file(
        self, connection: Connection, batch_id: str, stored: StoredFile, *, failed: bool
    ) -> None:
        """Name a batch's output or error file, in the transaction that keeps the file."""
        column = "error_file_id" if failed else "output_file_id"
        self._change(connection, batch_id, {column: stored.id})

    def _get(self, connection: Connection, batch_id: str) -> Batch:
        query = self._rows.select().where(_batches.c.id == batch_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"No batch found with id '{batch_id}'.", param="batch_id")
        return _batch(row)

    def _change(self, connection: Connection, batch_id: str, changes: Mapping[str, Any]) -> Batch:
        values = dict(changes)
        if "usage" in values:
            values["usage"] = asdict(values["usage"])
        if "errors" in values:
            values["errors"] = [asdict(error) for error in values["errors"]]
        statement = self._rows.update().where(_batches.c.id == batch_id)
        connection.execute(statement.values(values))
        return self._get(connection, batch_id)


def _keep(connection: Connection, batch_id: str, result: BatchResult) -> bool:
    row = {
        "batch_id": batch_id,
        "line": result.line,
        "failed": result.failed,
        "content": result.content,
    }
    kept = insert_or_ignore(_results).values(row).on_conflict_do_nothing()
    return connection.execute(kept).rowcount == 1


def _batch(row: Row[Any]) -> Batch:
    values = dict(row._mapping)
    del values["number"]
    values["errors"] = tuple(BatchError(**error) for error in row.errors or ())
    values["usage"] = TokenUsage(**row.usage)
    return Batch(**values)
