"""Permissions of other projects to use a project's checkpoint; `ModelStore` applies them.

Knows no models: the caller finds out whether a name means one of the project's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.ids import new_id
from emojitune.store.pagination import Order, Page, read_page
from emojitune.store.scope import Project, ScopedTable

_permissions = tables.permissions


@dataclass(frozen=True, slots=True)
class Permission:
    """A project's permission to use a checkpoint."""

    id: str
    created_at: int
    model: str
    project_id: str


class PermissionStore:
    """The permissions that a project granted, as rows of `database`."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        self._rows = ScopedTable(_permissions, project)

    def grant(self, model: str, project_ids: Sequence[str]) -> Sequence[Permission]:
        """Grant permissions to projects, and return them in this order; existing ones stay."""
        projects = list(dict.fromkeys(project_ids))
        stamp = self._database.now()
        rows = [
            {"id": new_id("cp_"), "created_at": stamp, "model": model, "project_id": project}
            for project in projects
        ]
        query = self._rows.select().where(
            _permissions.c.model == model, _permissions.c.project_id.in_(projects)
        )
        with self._database.transaction() as connection:
            connection.execute(self._rows.insert(*rows).on_conflict_do_nothing())
            permissions = {row.project_id: _permission(row) for row in connection.execute(query)}
        return [permissions[project] for project in projects]

    def list(
        self,
        model: str,
        project_id: str | None = None,
        after: str | None = None,
        limit: int = 10,
        order: Order = "desc",
    ) -> Page[Permission]:
        """A checkpoint's permissions, the newest first unless `order` is "asc"."""
        query = self._rows.select().where(_permissions.c.model == model)
        if project_id is not None:
            query = query.where(_permissions.c.project_id == project_id)
        with self._database.read() as connection:
            return read_page(
                connection, _permissions, query, _permission, after=after, limit=limit, order=order
            )

    def revoke(self, model: str, permission_id: str) -> None:
        """Revoke a permission.

        Raises:
            NotFoundError: The checkpoint has none of this id.
        """
        statement = self._rows.delete().where(
            _permissions.c.model == model, _permissions.c.id == permission_id
        )
        with self._database.transaction() as connection:
            if not connection.execute(statement).rowcount:
                raise NotFoundError(
                    f"No such permission: {permission_id}. List those of {model} to see which "
                    "there are.",
                    param="permission_id",
                )


def _permission(row: Row[Any]) -> Permission:
    return Permission(row.id, row.created_at, row.model, row.project_id)
