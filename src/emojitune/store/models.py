"""Fine-tuned models: the name that requests use, and what serves it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.scope import EVERY_PROJECT, Project, ScopedTable

_models, _permissions = tables.models, tables.permissions


@dataclass(frozen=True, slots=True)
class FineTunedModel:
    """A tuned model.

    `base` is the base model that really serves it, `hosted_name` the name in the request, `adapter`
    a folder name under `Settings.adapters`, and `step` that of a checkpoint before the job's end.
    `system_prompt` is the one of its training file, empty where that has none or several; None for
    models from before it was stored.
    """

    name: str
    created_at: int
    job_id: str
    base: str
    hosted_name: str
    adapter: str
    step: int | None = None
    system_prompt: str | None = None


class ModelStore:
    """A project's fine-tuned models as rows of `database`, and those shared with it."""

    def __init__(self, database: Database, project: Project) -> None:
        self._database = database
        granted = ScopedTable(_permissions, EVERY_PROJECT).select(_permissions.c.model)
        shared = granted.where(_permissions.c.project_id == project)
        self._own = ScopedTable(_models, project)
        self._readable = ScopedTable(_models, project, shared=_models.c.name.in_(shared))
        self._permissions = ScopedTable(_permissions, project)

    def register(self, model: FineTunedModel) -> None:
        """Add a model, unless one of this name is there."""
        with self._database.transaction() as connection:
            connection.execute(self._own.insert(asdict(model)).on_conflict_do_nothing())

    def get(self, name: str) -> FineTunedModel:
        """The model of this name, the project's own or shared with it.

        Raises:
            NotFoundError: There is none.
        """
        return self._find(self._readable, name)

    def get_own(self, name: str) -> FineTunedModel:
        """The project's own model of this name: permission to use one is no permission to share it.

        Raises:
            NotFoundError: There is none.
        """
        return self._find(self._own, name)

    def list(self) -> Sequence[FineTunedModel]:
        """Every model, its own and those shared with it, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(self._readable.select().order_by(_models.c.number.desc()))
            return [_model(row) for row in rows]

    def delete(self, name: str) -> None:
        """Delete an own model and its permissions; the caller removes its adapter's folder.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.transaction() as connection:
            statement = self._own.delete().where(_models.c.name == name)
            if not connection.execute(statement).rowcount:
                raise _unknown(name)
            connection.execute(self._permissions.delete().where(_permissions.c.model == name))

    def _find(self, rows: ScopedTable, name: str) -> FineTunedModel:
        with self._database.read() as connection:
            row = connection.execute(rows.select().where(_models.c.name == name)).one_or_none()
        if row is None:
            raise _unknown(name)
        return _model(row)


def _model(row: Row[Any]) -> FineTunedModel:
    fields = dict(row._mapping)
    del fields["number"], fields["project"]
    return FineTunedModel(**fields)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"The model '{name}' does not exist", code="model_not_found", param="model"
    )
