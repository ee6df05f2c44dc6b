"""Keyset pagination: one page of a list, and whether more rows follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Connection, Row, Select, Table

from emojitune.errors import NotFoundError

T = TypeVar("T")

Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page; the id of its last item is the cursor of the next."""

    items: tuple[T, ...]
    has_more: bool


def read_page(
    connection: Connection,
    table: Table,
    query: Select[Any],
    build: Callable[[Row[Any]], T],
    *,
    after: str | None,
    limit: int,
    order: Order = "desc",
) -> Page[T]:
    """The rows of `query` that follow the one with the id `after`.

    Raises:
        NotFoundError: None of them has that id. Starting over instead would page for ever.
    """
    number = table.c.number
    if after is not None:
        cursor = connection.scalar(query.with_only_columns(number).where(table.c.id == after))
        if cursor is None:
            raise _unknown_cursor(after)
        query = query.where(number < cursor if order == "desc" else number > cursor)
    direction = number.desc() if order == "desc" else number.asc()
    rows = connection.execute(query.order_by(direction).limit(limit + 1)).all()
    return Page(tuple(build(row) for row in rows[:limit]), has_more=len(rows) > limit)


def slice_page(
    items: Sequence[Mapping[str, Any]], *, after: str | None, limit: int, order: Order
) -> Page[Mapping[str, Any]]:
    """A page of a sequence of objects with ids, the oldest first.

    Raises:
        NotFoundError: None of them has the id `after`.
    """
    ordered = items if order == "asc" else items[::-1]
    if after is not None:
        place = next((at for at, item in enumerate(ordered) if item["id"] == after), None)
        if place is None:
            raise _unknown_cursor(after)
        ordered = ordered[place + 1 :]
    return Page(tuple(ordered[:limit]), has_more=len(ordered) > limit)


def _unknown_cursor(after: str) -> NotFoundError:
    return NotFoundError(
        "'after' takes the id of the last item of a page, and nothing here is called "
        f"'{after}'. Take an id from this list, or leave 'after' out to start over.",
        param="after",
    )
