"""Fine-tuned models: the name that requests use, and what serves it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, delete, select
from sqlalchemy.dialects.sqlite import insert

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database

_models, _permissions = tables.models, tables.permissions


@dataclass(frozen=True, slots=True)
class FineTunedModel:
    """A tuned model.

    `base` is the base model that really serves it, `hosted_name` what the request called it,
    `adapter` a folder name under `Settings.adapters`, and `step` that of a checkpoint on the way.
    """

    name: str
    created_at: int
    job_id: str
    base: str
    hosted_name: str
    adapter: str
    step: int | None = None


class ModelStore:
    """Fine-tuned models as rows of `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def register(self, model: FineTunedModel) -> None:
        """Make a model known; once is enough."""
        with self._database.write() as connection:
            statement = insert(_models).values(asdict(model)).on_conflict_do_nothing()
            connection.execute(statement)

    def get(self, name: str) -> FineTunedModel:
        """The model of this name.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            row = connection.execute(select(_models).where(_models.c.name == name)).one_or_none()
        if row is None:
            raise _unknown(name)
        return _model(row)

    def list(self) -> Sequence[FineTunedModel]:
        """All models, the newest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(_models).order_by(_models.c.number.desc()))
            return [_model(row) for row in rows]

    def delete(self, name: str) -> None:
        """Forget a model and who may use it; its adapter's folder is the caller's to remove.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.write() as connection:
            if not connection.execute(delete(_models).where(_models.c.name == name)).rowcount:
                raise _unknown(name)
            connection.execute(delete(_permissions).where(_permissions.c.model == name))


def _model(row: Row[Any]) -> FineTunedModel:
    fields = dict(row._mapping)
    del fields["number"]
    return FineTunedModel(**fields)


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"The model '{name}' does not exist", code="model_not_found", param="model"
    )
