"""Stored responses: the object as it was sent, and the items that it answers.

Knows nothing of what is inside them but their ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.projects import Project, Rows

_responses = tables.responses


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response.

    `input_items` are the whole conversation before it, the oldest first: those of the responses
    that it continues too, so that one of these may be deleted.
    """

    id: str
    created_at: int
    previous_response_id: str | None
    response: Mapping[str, Any]
    input_items: Sequence[Mapping[str, Any]]


class ResponseStore:
    """A project's responses as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = Rows(_responses, project)

    def add(self, stored: StoredResponse) -> None:
        """Keep a response that has ended."""
        with self._database.write() as connection:
            connection.execute(self._rows.insert(asdict(stored)))

    def get(self, response_id: str) -> StoredResponse:
        """The response of this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            row = connection.execute(
                self._rows.select().where(_responses.c.id == response_id)
            ).one_or_none()
        if row is None:
            raise _unknown(response_id)
        return StoredResponse(
            row.id, row.created_at, row.previous_response_id, row.response, row.input_items
        )

    def delete(self, response_id: str) -> None:
        """Forget a response; those that continue it stay whole.

        Raises:
            NotFoundError: There is none.
        """
        statement = self._rows.delete().where(_responses.c.id == response_id)
        with self._database.write() as connection:
            if not connection.execute(statement).rowcount:
                raise _unknown(response_id)


def _unknown(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{response_id}' not found.")
