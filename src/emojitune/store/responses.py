"""Stored responses: the object as it was sent, the items that it answers, and each item by its id.

Knows nothing of their content but ids.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import bindparam, func, insert

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.scope import Project, ScopedTable

_responses = tables.responses
_items = tables.response_items

Item = Mapping[str, Any]
_IDS_AT_ONCE = 10_000  # a statement of SQLite has at most 32,766 parameters, or more


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response.

    `input_items` are the entire conversation before it, the oldest first, with those of the
    responses that it continues, so that one of these can be deleted.
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
        # Clients choose ids too, so several responses may have an item of one id: the last counts.
        same = _items.alias()
        last = (
            self._rows.select(func.max(same.c.number))
            .where(
                same.c.response_id == _responses.c.id,
                same.c.item_id.in_(bindparam("ids", expanding=True)),
            )
            .group_by(same.c.item_id)
            .correlate(None)
        )
        self._last_items = self._rows.select(_items.c.item_id, _items.c.item).where(
            _items.c.response_id == _responses.c.id, _items.c.number.in_(last)
        )

    def add(self, stored: StoredResponse, new: Iterable[Item]) -> None:
        """Store a finished response.

        Args:
            new: The input items that came with it. They belong to it, like its output; the others
                belong to earlier responses.
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
        """The items of these ids, while the responses that they belong to are stored.

        Raises:
            NotFoundError: There is no such item.
        """
        requested = list(dict.fromkeys(ids))
        items: dict[str, Item] = {}
        with self._database.read() as connection:
            for start in range(0, len(requested), _IDS_AT_ONCE):
                parameters = {"ids": requested[start : start + _IDS_AT_ONCE]}
                rows = connection.execute(self._last_items, parameters)
                items.update((row.item_id, row.item) for row in rows)
        for item_id in requested:
            if item_id not in items:
                raise _unknown_item(item_id)
        return {item_id: items[item_id] for item_id in requested}

    def delete(self, response_id: str) -> None:
        """Delete a response with its items; responses that continue it stay complete.

        Raises:
            NotFoundError: There is none.
        """
        statement = self._rows.delete().where(_responses.c.id == response_id)
        with self._database.transaction() as connection:
            if not connection.execute(statement).rowcount:
                raise _unknown(response_id)


def _unknown(response_id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{response_id}' not found.")


def _unknown_item(item_id: str) -> NotFoundError:
    return NotFoundError(
        f"Item with id '{item_id}' not found. An item is kept for as long as its response is "
        "stored. Send the complete item instead of its id.",
        param="input",
    )
