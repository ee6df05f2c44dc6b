"""Stored responses: the object as it was sent, the items that it answers, and each item by its id.

Knows nothing of what is inside them but their ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.scope import Project, ScopedTable

_responses = tables.responses
_items = tables.response_items

Item = Mapping[str, Any]


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
    input_items: Sequence[Item]


class ResponseStore:
    """A project's responses as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = ScopedTable(_responses, project)
        # An id that a client chose may stand in several responses: the last one's counts.
        self._item = (
            self._rows.select(_items.c.item)
            .where(_items.c.response_id == _responses.c.id, _items.c.item_id == bindparam("id"))
            .order_by(_items.c.number.desc())
            .limit(1)
        )

    def add(self, stored: StoredResponse, new: Iterable[Item]) -> None:
        """Keep a response that has ended.

        Args:
            new: Those of its input items that came with it: they are its own, as its output is.
                The others belong to earlier responses.
        """
        rows = [
            {"response_id": stored.id, "item_id": item["id"], "item": item}
            for item in (*new, *stored.response["output"])
        ]
        with self._database.transaction() as connection:
            connection.execute(self._rows.insert(asdict(stored)))
            if rows:
                connection.execute(insert(_items), rows)

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

    def items(self, ids: Iterable[str]) -> dict[str, Item]:
        """The items of these ids, for as long as the responses are stored that they belong to.

        Raises:
            NotFoundError: There is no such item.
        """
        with self._database.read() as connection:
            return {item_id: self._get_item(connection, item_id) for item_id in dict.fromkeys(ids)}

    def delete(self, response_id: str) -> None:
        """Forget a response with its items; those that continue it stay whole.

        Raises:
            NotFoundError: There is none.
        """
        statement = self._rows.delete().where(_responses.c.id == response_id)
        with self._database.transaction() as connection:
            if not connection.execute(statement).rowcount:
                raise _unknown(response_id)

    def _get_item(self, connection: Connection, item_id: str) -> Item:
        item: Item | None = connection.scalar(self._item, {"id": item_id})
        if item is None:
            raise NotFoundError(
                f"Item with id '{item_id}' not found. An item is kept for as long as its response "
                "is stored. Send the whole item instead of its id.",
                param="input",
            )
        return item


def _unknown(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{response_id}' not found.")
