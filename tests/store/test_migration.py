"""Migration of a home of an older emojitune, with rows in every table."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from clocks import ManualClock

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.store import tables
from emojitune.store.batches import BatchStore
from emojitune.store.chat_completions import ChatCompletionStore
from emojitune.store.database import Database, newest_revision, open_database
from emojitune.store.files import FileStore
from emojitune.store.idempotency import Attempt, IdempotencyStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore
from emojitune.store.permissions import PermissionStore
from emojitune.store.responses import ResponseStore
from emojitune.store.uploads import UploadStore

OLD = Path(__file__).parent / "data/revision_0005.sql"
MODEL = "ft:gpt-3.5-turbo-0125:local:emoji-v1:abcdefgh"
OWNED = [table for table in tables.metadata.sorted_tables if "project" in table.c]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with sqlite3.connect(tmp_path / "emojitune.db") as old:
        old.executescript(OLD.read_text())
        [revision] = old.execute("SELECT version_num FROM alembic_version").fetchone()
    old.close()
    assert revision == "0005"
    return tmp_path


@pytest.fixture
def upgraded(home: Path) -> Iterator[Database]:
    """The home at the time of its last request, before anything in it expires."""
    with sqlite3.connect(home / "emojitune.db") as plain:
        [(then,)] = plain.execute("SELECT max(asked_at) FROM creations").fetchall()
    plain.close()
    database = open_database(home, ManualClock(then))
    yield database
    database.close()


def test_the_old_tables_become_those_that_the_code_expects(upgraded: Database, home: Path) -> None:
    with upgraded.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == newest_revision()


def test_items_of_old_responses_are_found(home: Path) -> None:
    said, told = ({"id": f"msg_{word}", "content": [word]} for word in ("said", "told"))
    rows = [
        ("resp_1", json.dumps({"output": [told]}), json.dumps([said])),
        ("resp_2", json.dumps({"output": []}), json.dumps([said, told])),
    ]
    with sqlite3.connect(home / "emojitune.db") as old:
        insert = "INSERT INTO responses (id, created_at, response, input_items) VALUES (?, 1, ?, ?)"
        old.executemany(insert, rows)
    old.close()
    database = open_database(home)
    responses = ResponseStore(database, "default")
    assert responses.items(["msg_said", "msg_told"]) == {"msg_said": said, "msg_told": told}
    with pytest.raises(NotFoundError):
        ResponseStore(database, "other").items(["msg_said"])
    responses.delete("resp_1")
    for item in ("msg_said", "msg_told"):  # each was the first one's
        with pytest.raises(NotFoundError):
            responses.items([item])
    database.close()


def test_every_old_row_belongs_to_the_default_project(upgraded: Database, home: Path) -> None:
    with sqlite3.connect(home / "emojitune.db") as plain:
        owners = {
            table.name: plain.execute(f"SELECT DISTINCT project FROM {table.name}").fetchall()
            for table in OWNED
            if table is not tables.keys
        }
    plain.close()
    assert len(owners) == 9
    assert set(map(tuple, owners.values())) == {(("default",),)}


def test_the_default_project_finds_all_and_another_nothing(upgraded: Database, home: Path) -> None:
    def found(project: str) -> list[int]:
        files = FileStore(upgraded, project, home / "files")
        return [
            len(files.list().items),
            len(JobStore(upgraded, project).list().items),
            len(BatchStore(upgraded, project).list().items),
            len(ChatCompletionStore(upgraded, project).list().items),
            len(ModelStore(upgraded, project).list()),
            len(PermissionStore(upgraded, project).list(MODEL).items),
        ]

    assert found("default") == [2, 1, 1, 1, 1, 1]
    assert found("other") == [0] * 6
    [job] = JobStore(upgraded, "default").list().items
    assert (job.fine_tuned_model, job.metadata) == (MODEL, {"a": "b"})
    assert len(JobStore(upgraded, "default").events(job.id).items) == 2
    assert ResponseStore(upgraded, "default").get("resp_old").created_at == 1790000000
    with pytest.raises(NotFoundError):
        ResponseStore(upgraded, "other").get("resp_old")


def test_an_upload_and_an_idempotency_key_of_the_old_home_stay_valid(
    upgraded: Database, home: Path
) -> None:
    files = FileStore(upgraded, "default", home / "files")
    [upload_id] = _ids(home, "uploads")
    upload = UploadStore(upgraded, "default", home / "parts", files).get(upload_id)
    assert (upload.status, upload.bytes) == ("pending", 3)
    idempotency = IdempotencyStore(upgraded, "default")
    attempt = Attempt("/v1/fine_tuning/jobs", "digest", 0, "key-1")
    assert [idempotency.reserve(attempt, str).resource_id] == _ids(home, "jobs")
    other = Attempt("/v1/fine_tuning/jobs", "another digest", 0, "key-1")
    with pytest.raises(InvalidRequestError):
        idempotency.reserve(other, str)
    assert IdempotencyStore(upgraded, "other").reserve(other, lambda: "new").resource_id == "new"


def test_a_permission_that_was_only_stored_takes_effect_now(upgraded: Database) -> None:
    assert ModelStore(upgraded, "team").get(MODEL).name == MODEL


def _ids(home: Path, table: str) -> list[str]:
    with sqlite3.connect(home / "emojitune.db") as plain:
        ids = [row[0] for row in plain.execute(f"SELECT id FROM {table}")]
    plain.close()
    return ids
