"""The rows that a store sees: those of one project or, said explicitly, those of all projects.

A statement on a table with a `project` column begins at a `ScopedTable`, which adds the project;
the database refuses any other statement on it, so no query can forget it. Rows that belong to such
a row (events, checkpoints, parts, results) have no project of their own: stores look up the row
that they belong to first.
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
"""For code that serves all of them: the dispatcher, the sweeper, the loader of models."""

DEFAULT_PROJECT = "default"
"""The project of the server's own key, and of all rows from before there were projects."""

Project = str | EveryProject

StatementT = TypeVar("StatementT", Select[Any], Insert, Update, Delete)


class ScopedTable:
    """One project's rows of a table.

    Args:
        shared: Which rows of other projects can be read too, though never changed.
    """

    def __init__(
        self, table: Table, project: Project, *, shared: ColumnElement[bool] | None = None
    ) -> None:
        self._table = table
        self._project = project
        own = everything() if project is EVERY_PROJECT else table.c.project == project
        self._readable = own if shared is None else or_(own, shared)
        # Made once: building a statement costs as much as running it.
        self._all_columns = self._scoped(select(table).where(self._readable))
        self._update = self._scoped(update(table).where(own))
        self._delete = self._scoped(delete(table).where(own))

    def select(self, *columns: ColumnElement[Any]) -> Select[Any]:
        """All columns of the rows, or these columns of them."""
        if not columns:
            return self._all_columns
        return self._scoped(select(*columns).where(self._readable))

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
