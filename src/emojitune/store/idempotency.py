"""Idempotency of requests that create something: a repeated one creates nothing new.

A request reserves the id of the new resource *before* it creates it, and a resource with a given id
is created once, however often that is tried. So nothing depends on how far an earlier attempt came:
it may still be running, have lost its client, or have died with the server.

The clients of OpenAI repeat a POST whose connection was cut or timed out, with an identical body,
no Idempotency-Key, and the header `x-stainless-retry-count`: 0 on the first try, then 1, 2. The
rule:

1. The same `Idempotency-Key` on the same path means the same request, for a day.
2. Attempt 0 is always a request of its own: sent twice, it creates two.
3. Attempt N > 0 belongs to an earlier request with the same path and body whose last attempt has a
   lower number. Each attempt of a request counts once, so two requests that both lost their
   connection keep a retry each. Requests whose response was never delivered come first, then the
   newest.
4. A request can be repeated so for `UNANSWERED_SECONDS` after its last attempt, which is longer
   than a client waits. Once the server has sent the response over a connection that was still open,
   `ANSWERED_SECONDS` are enough: the client got it, or repeats within its longest pause of 8
   seconds.

Knows nothing of HTTP: a path, a digest of the body and a number come in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, or_

from emojitune.errors import InvalidRequestError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.scope import EVERY_PROJECT, Project, ScopedTable

UNANSWERED_SECONDS = 15 * 60.0  # a client waits 10 minutes for an answer, then up to 8 seconds
ANSWERED_SECONDS = 60.0
_KEPT_SECONDS = 24 * 3600.0

_reservations = tables.reservations


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that creates something: `number` is 0 for the first try, then 1, 2."""

    path: str
    digest: str
    number: int = 0
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """The id of the resource that a request creates, and whether an earlier attempt reserved it."""

    resource_id: str
    repeated: bool


class IdempotencyStore:
    """A project's reservations as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = ScopedTable(_reservations, project)

    def reserve(self, attempt: Attempt, new_id: Callable[[], str]) -> Reservation:
        """Reserve the id of what `attempt` creates: that of an earlier attempt, or a new one.

        Raises:
            InvalidRequestError: Its key belongs to a request with another body.
        """
        clock = self._database.clock()
        with self._database.transaction() as connection:
            too_old = _reservations.c.asked_at < clock - _KEPT_SECONDS
            connection.execute(ScopedTable(_reservations, EVERY_PROJECT).delete().where(too_old))
            earlier = self._earlier(connection, attempt, clock)
            if earlier is not None:
                self._note_attempt(connection, earlier, attempt, clock)
                return Reservation(earlier.subject, repeated=True)
            resource_id = new_id()
            row = {
                "subject": resource_id,
                "path": attempt.path,
                "digest": attempt.digest,
                "key": attempt.key,
                "attempt": attempt.number,
                "asked_at": clock,
            }
            connection.execute(self._rows.insert(row))
            return Reservation(resource_id, repeated=False)

    def mark_answered(self, resource_id: str) -> None:
        """Note that the response went to a client that was still connected."""
        self._change(self._rows.update().values(answered_at=self._database.clock()), resource_id)

    def forget(self, resource_id: str) -> None:
        """Drop a reservation: the request was refused, and nothing created."""
        self._change(self._rows.delete(), resource_id)

    def _change(self, statement: Any, resource_id: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(statement.where(_reservations.c.subject == resource_id))

    def _earlier(self, connection: Connection, attempt: Attempt, clock: float) -> Row[Any] | None:
        if attempt.key is not None:
            return self._of_key(connection, attempt)
        if attempt.number == 0:
            return None
        query = (
            self._rows.select()
            .where(
                _reservations.c.path == attempt.path,
                _reservations.c.digest == attempt.digest,
                _reservations.c.key.is_(None),
                _reservations.c.attempt < attempt.number,
                _open(clock),
            )
            .order_by(_reservations.c.answered_at.is_not(None), _reservations.c.number.desc())
            .limit(1)
        )
        return connection.execute(query).one_or_none()

    def _of_key(self, connection: Connection, attempt: Attempt) -> Row[Any] | None:
        query = self._rows.select().where(
            _reservations.c.path == attempt.path, _reservations.c.key == attempt.key
        )
        row = connection.execute(query).one_or_none()
        if row is not None and row.digest != attempt.digest:
            raise InvalidRequestError(
                "An Idempotency-Key stands for one request, and this one was sent before with "
                "another body. Repeat the first body, or take a new key.",
                code="idempotency_key_reused",
            )
        return row

    def _note_attempt(
        self, connection: Connection, row: Row[Any], attempt: Attempt, clock: float
    ) -> None:
        values = {
            "attempt": max(row.attempt, attempt.number),
            "asked_at": clock,
            "answered_at": None,
        }
        statement = self._rows.update().where(_reservations.c.number == row.number)
        connection.execute(statement.values(values))


def _open(clock: float) -> ColumnElement[bool]:
    unanswered = and_(
        _reservations.c.answered_at.is_(None),
        _reservations.c.asked_at >= clock - UNANSWERED_SECONDS,
    )
    return or_(unanswered, _reservations.c.answered_at >= clock - ANSWERED_SECONDS)
