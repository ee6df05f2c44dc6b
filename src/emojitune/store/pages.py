"""Pages of a list: some rows, and whether there are more behind them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import Connection, Row, Select, Table

from emojitune.errors import NotFoundError

T = TypeVar("T")

Order = Literal["asc", "desc"]


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page. The cursor of the next is the id of the last item."""

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
    """The rows of `query` that come after that one among them with the id `after`.

    Raises:
        NotFoundError: None of them has that id. To start over instead would page for ever.
    """
    number = table.c.number
    if after is not None:
        cursor = connection.scalar(query.with_only_columns(number).where(table.c.id == after))
        if cursor is None:
            raise NotFoundError(
                f"'after' takes the id of the last item of a page, and nothing here is called "
                f"'{after}'. Take an id from this list, or leave 'after' out to start anew.",
                param="after",
            )
        query = query.where(number < cursor if order == "desc" else number > cursor)
    direction = number.desc() if order == "desc" else number.asc()
    rows = connection.execute(query.order_by(direction).limit(limit + 1)).all()
    return Page(tuple(build(row) for row in rows[:limit]), has_more=len(rows) > limit)
