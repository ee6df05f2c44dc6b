"""Stored chat completions: the object as it was sent, and the messages that it answers.

Knows nothing of their content but ids, model and metadata.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.jobs import has_pair
from emojitune.store.pagination import Order, Page, read_page
from emojitune.store.scope import Project, ScopedTable

_completions = tables.chat_completions


@dataclass(frozen=True, slots=True)
class StoredChatCompletion:
    """A completion; its `metadata` may be changed, the rest stays as it was."""

    id: str
    created_at: int
    model: str
    metadata: Mapping[str, str] | None
    completion: Mapping[str, Any]
    messages: Sequence[Mapping[str, Any]]


class ChatCompletionStore:
    """A project's completions as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = ScopedTable(_completions, project)

    def add(self, stored: StoredChatCompletion) -> None:
        """Store a finished completion."""
        with self._database.transaction() as connection:
            connection.execute(self._rows.insert(asdict(stored)))

    def get(self, completion_id: str) -> StoredChatCompletion:
        """The completion of this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            return self._get(connection, completion_id)

    def list(
        self,
        *,
        model: str | None = None,
        metadata: Mapping[str, str] | None = None,
        after: str | None = None,
        limit: int = 20,
        order: Order = "asc",
    ) -> Page[StoredChatCompletion]:
        """List completions: all, those of a model, or those with every pair of `metadata`."""
        query = self._rows.select().where(
            *(has_pair(_completions.c.metadata, *pair) for pair in (metadata or {}).items())
        )
        if model is not None:
            query = query.where(_completions.c.model == model)
        with self._database.read() as connection:
            return read_page(
                connection, _completions, query, _stored, after=after, limit=limit, order=order
            )

    def update(
        self, completion_id: str, metadata: Mapping[str, str] | None
    ) -> StoredChatCompletion:
        """Replace the metadata.

        Raises:
            NotFoundError: There is no such completion.
        """
        this = _completions.c.id == completion_id
        with self._database.transaction() as connection:
            connection.execute(self._rows.update().where(this).values(metadata=metadata))
            return self._get(connection, completion_id)

    def delete(self, completion_id: str) -> None:
        """Delete a completion and its messages.

        Raises:
            NotFoundError: There is none.
        """
        this = _completions.c.id == completion_id
        with self._database.transaction() as connection:
            if not connection.execute(self._rows.delete().where(this)).rowcount:
                raise _unknown(completion_id)

    def _get(self, connection: Connection, completion_id: str) -> StoredChatCompletion:
        query = self._rows.select().where(_completions.c.id == completion_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise _unknown(completion_id)
        return _stored(row)


def _stored(row: Row[Any]) -> StoredChatCompletion:
    fields = dict(row._mapping)
    del fields["number"], fields["project"]
    return StoredChatCompletion(**fields)


def _unknown(completion_id: str) -> NotFoundError:
    return NotFoundError(
        f"No stored chat completion found with id '{completion_id}'. Only those that were created "
        "with `store: true` are kept.",
        param="completion_id",
    )
