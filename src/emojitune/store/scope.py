"""Whose rows a store sees: those of one project or, said in so many words, those of all.

A statement on a table with an owner begins at `Rows`, which adds whose rows they are; the database
refuses any other. So no query can forget it. Rows that hang on such a row (events, checkpoints,
parts, results) have no owner of their own: stores look at the row that they hang on first.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Delete, Select, Table, Update, delete, or_, select, update
from sqlalchemy import true as everything
from sqlalchemy.dialects.sqlite import Insert, insert

from emojitune.store.database import SCOPED


class EveryProject(Enum):
    """The type of `EVERY_PROJECT`."""

    EVERY_PROJECT = "every project"


EVERY_PROJECT: Final = EveryProject.EVERY_PROJECT
"""For who serves all of them: the dispatcher, the sweeper, the loader of models."""

DEFAULT_PROJECT = "default"
"""Of the server's own key, and of all that was there before there were projects."""

Project = str | EveryProject

StatementT = TypeVar("StatementT", Select[Any], Insert, Update, Delete)


class Rows:
    """One project's rows of a table.

    Args:
        shared: Which rows of others are seen too, though never changed.
    """

    def __init__(
        self, table: Table, project: Project, *, shared: ColumnElement[bool] | None = None
    ) -> None:
        self._table = table
        self._project = project
        own = everything() if project is EVERY_PROJECT else table.c.project == project
        self._seen = own if shared is None else or_(own, shared)
        # Made once: building a statement costs as much as running it.
        self._whole_rows = self._scoped(select(table).where(self._seen))
        self._update = self._scoped(update(table).where(own))
        self._delete = self._scoped(delete(table).where(own))

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """Whole rows, or these columns of them."""
        if not columns:
            return self._whole_rows
        return self._scoped(select(*columns).where(self._seen))

    def insert(self, *rows: Mapping[str, Any]) -> Insert:
        """Rows that belong to the project."""
        assert self._project is not EVERY_PROJECT, "what is made belongs to one project"
        owned = [{**row, "project": self._project} for row in rows]
        return self._scoped(insert(self._table).values(owned))

    def update(self) -> Update:
        return self._update

    def delete(self) -> Delete:
        return self._delete

    def _scoped(self, statement: StatementT) -> StatementT:
        return statement.execution_options(**SCOPED)
