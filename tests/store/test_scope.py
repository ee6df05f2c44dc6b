"""A store sees only its project's rows, and no statement can forget to name the project."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from emojitune.errors import NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.files import FileStore
from emojitune.store.idempotency import Attempt, IdempotencyStore
from emojitune.store.ids import new_id
from emojitune.store.jobs import JobStore
from emojitune.store.models import FineTunedModel, ModelStore
from emojitune.store.permissions import PermissionStore
from emojitune.store.scope import EVERY_PROJECT
from emojitune.store.uploads import UploadStore

MODEL = FineTunedModel("ft:b:local::abcdefgh", 1, "ftjob-1", "b", "b", "a")
FIELDS = {"model": "m", "training_file": "file-a", "hyperparameters": {}}


@pytest.mark.parametrize(
    "statement",
    [
        select(tables.files),
        select(tables.jobs.c.id).where(tables.jobs.c.status == "queued"),
        select(tables.events, tables.jobs.c.status).join_from(tables.events, tables.jobs),
        update(tables.jobs).values(status="cancelled"),
        delete(tables.models),
        insert(tables.responses).values(id="resp_1"),
    ],
)
def test_a_statement_without_a_project_is_refused(database: Database, statement: Any) -> None:
    with database.transaction() as connection, pytest.raises(RuntimeError, match="Whose rows"):
        connection.execute(statement)


def test_every_table_has_a_project_or_belongs_to_a_row_that_has() -> None:
    owned = {table.name for table in tables.metadata.sorted_tables if "project" in table.c}
    for table in tables.metadata.sorted_tables:
        above = {key.column.table.name for key in table.foreign_keys}
        assert table.name in owned or above <= owned != set(), table.name
        assert table.name in owned or above, table.name


def test_a_new_row_belongs_to_one_project(database: Database) -> None:
    with pytest.raises(AssertionError, match="belongs to one project"):
        JobStore(database, EVERY_PROJECT).create(**FIELDS)


def test_a_job_is_its_projects_and_the_dispatchers(database: Database) -> None:
    mine, yours, everyones = (JobStore(database, who) for who in ("a", "b", EVERY_PROJECT))
    job = mine.create(**FIELDS)
    assert mine.get(job.id) == everyones.get(job.id) == job
    assert job.project == "a"
    asks: list[Callable[[], Any]] = [
        lambda: yours.get(job.id),
        lambda: yours.events(job.id),
        lambda: yours.checkpoints(job.id),
        lambda: yours.update(job.id, suffix="stolen"),
        lambda: yours.transition(job.id, "cancelled", sources=["validating_files"]),
        lambda: yours.create(**FIELDS, job_id=job.id),
    ]
    for ask in asks:
        with pytest.raises(NotFoundError, match=job.id):
            ask()
    assert (yours.list().items, yours.unfinished()) == ((), [])
    assert everyones.unfinished() == mine.unfinished() == [job]
    assert mine.get(job.id) == job


def test_equal_bytes_of_two_projects_are_kept_until_both_are_gone(
    database: Database, tmp_path: Path
) -> None:
    mine, yours = (FileStore(database, who, tmp_path / "files") for who in ("a", "b"))
    first, second = (
        store.add([b"same"], filename="f", purpose="fine-tune") for store in (mine, yours)
    )
    assert mine.path(first.id) == yours.path(second.id)
    with pytest.raises(NotFoundError):
        yours.delete(first.id)
    mine.delete(first.id)
    assert yours.path(second.id).read_bytes() == b"same"


def test_sweeping_leaves_the_parts_of_other_projects(database: Database, tmp_path: Path) -> None:
    stores = []
    for who in ("a", "b"):
        files = FileStore(database, who, tmp_path / "files")
        stores.append(UploadStore(database, who, tmp_path / "files/parts", files))
    mine, yours = stores
    upload = mine.create(filename="f", purpose="fine-tune", bytes=3)
    part = mine.add_part(upload.id, [b"abc"])
    yours.create(filename="f", purpose="fine-tune", bytes=3)  # which sweeps
    with pytest.raises(NotFoundError):
        yours.add_part(upload.id, [b"abc"])
    with pytest.raises(NotFoundError):
        yours.cancel(upload.id)
    assert mine.complete(upload.id, [part.id])[0].status == "completed"


def test_a_repeated_request_belongs_to_its_project(database: Database) -> None:
    mine, yours = IdempotencyStore(database, "a"), IdempotencyStore(database, "b")

    def made(store: IdempotencyStore, number: int, key: str | None) -> str:
        return store.reserve(
            Attempt("/v1/x", "digest", number, key), lambda: new_id("x")
        ).resource_id

    for key in ("key", None):
        first = made(mine, 0, key)
        assert made(yours, 1, key) != first
        assert made(mine, 1, key) == first


def test_permission_to_use_a_model_is_permission_to_see_it_and_no_more(database: Database) -> None:
    mine, yours, others = (ModelStore(database, who) for who in "abc")
    mine.register(MODEL)
    permissions = PermissionStore(database, "a")
    [permission] = permissions.grant(MODEL.name, ["b"])
    assert yours.get(MODEL.name) == MODEL
    assert (yours.list(), others.list()) == ([MODEL], [])
    for ask in (yours.get_own, yours.delete, others.get):
        with pytest.raises(NotFoundError):
            ask(MODEL.name)
    with pytest.raises(NotFoundError):
        PermissionStore(database, "b").revoke(MODEL.name, permission.id)
    permissions.revoke(MODEL.name, permission.id)
    assert yours.list() == []
    assert mine.get(MODEL.name) == MODEL


def test_a_models_name_is_taken_once_by_whoever_was_first(database: Database) -> None:
    mine, yours = ModelStore(database, "a"), ModelStore(database, "b")
    mine.register(MODEL)
    yours.register(MODEL)
    assert (mine.list(), yours.list()) == ([MODEL], [])
