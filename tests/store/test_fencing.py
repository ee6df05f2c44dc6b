"""Fencing: a worker's writes are kept only while it holds the job; and transactions are atomic."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from clocks import ManualClock
from sqlalchemy import text

from emojitune.errors import StorageError
from emojitune.store.database import Database, DatabaseUnavailableError, open_database
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseLostError, LeaseStore
from emojitune.store.models import FineTunedModel, ModelStore

BEGUN = ("validating_files", "queued", "running")


def everything(database: Database) -> list[object]:
    names = ("jobs", "job_events", "job_checkpoints", "fine_tuned_models", "files")
    with database.read() as connection:
        return [connection.execute(text(f"SELECT * FROM {name}")).all() for name in names]


def test_a_lease_belongs_to_one_worker_until_it_ends(
    jobs: JobStore, leases: LeaseStore, clock: ManualClock
) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    assert leases.claim(job.id, "a", 60)
    assert leases.claim(job.id, "a", 60)
    assert not leases.claim(job.id, "b", 60)
    assert not leases.renew(job.id, "b", 60)
    leases.release(job.id, "b")
    clock.now += 59
    assert (leases.leased(), leases.expired()) == ({job.id}, set())
    clock.now += 1
    assert (leases.leased(), leases.expired()) == (set(), {"a"})
    assert leases.claim(job.id, "b", 60)
    assert not leases.renew(job.id, "a", 60)
    leases.release(job.id, "b")
    assert leases.leased() == set()


def test_a_worker_whose_job_was_taken_over_writes_nothing(
    database: Database, jobs: JobStore, leases: LeaseStore, tmp_path: Path
) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    assert leases.claim(job.id, "first", 60)
    fenced = leases.fenced(job.id, "first", statuses=BEGUN)
    mine, models, files = (
        JobStore(fenced, "default"),
        ModelStore(fenced, "default"),
        FileStore(fenced, "default", tmp_path / "f"),
    )
    mine.add_event(job.id, "mine")
    assert jobs.events(job.id).items[0].message == "mine"

    leases.renew(job.id, "first", -1)
    mine.add_event(job.id, "late, but nobody else has it")
    assert leases.claim(job.id, "second", 60)
    before = everything(database)
    model = FineTunedModel("ft:m", 1, job.id, "b", "h", "a")
    for write in (
        lambda: mine.add_event(job.id, "not any more"),
        lambda: mine.transition(job.id, "queued", sources=["validating_files"]),
        lambda: mine.update(job.id, estimated_finish=1),
        lambda: mine.add_checkpoint(job.id, model="m", step=1, metrics={}),
        lambda: mine.drop_checkpoints(job.id, keep=0),
        lambda: models.register(model),
        lambda: files.add([b"result"], filename="f", purpose="fine-tune-results"),
        lambda: fenced.transaction().__enter__(),
    ):
        with pytest.raises(LeaseLostError, match="first no longer holds"):
            write()
    assert everything(database) == before
    assert not [path for path in (tmp_path / "f").rglob("*") if path.is_file()]
    assert mine.get(job.id) == jobs.get(job.id), "it may still read"


@pytest.mark.parametrize("status", ["paused", "cancelled", "queued"])
def test_writes_after_a_job_was_stopped_are_not_kept(
    database: Database, jobs: JobStore, leases: LeaseStore, status: str
) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    jobs.transition(job.id, "queued", sources=["validating_files"])
    jobs.transition(job.id, "running", sources=["queued"])
    assert leases.claim(job.id, "me", 60)
    fenced = leases.fenced(job.id, "me", statuses=["running"])
    mine = JobStore(fenced, "default")
    mine.add_event(job.id, "Step 1")
    jobs.transition(job.id, status, sources=["running"])
    before = everything(database)
    for write in (
        lambda: mine.add_event(job.id, "Step 2"),
        lambda: mine.add_checkpoint(job.id, model="m", step=2, metrics={}),
        lambda: ModelStore(fenced, "default").register(
            FineTunedModel("ft:m", 1, job.id, "b", "h", "a")
        ),
    ):
        with pytest.raises(LeaseLostError, match=f"it is {status}"):
            write()
    assert everything(database) == before


def test_writes_of_one_transaction_are_kept_together_or_not_at_all(
    database: Database, jobs: JobStore, models: ModelStore
) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    model = FineTunedModel("ft:m", 1, job.id, "b", "h", "a")

    def write(count: int) -> None:
        with database.transaction():
            jobs.transition(job.id, "queued", sources=["validating_files"])
            jobs.add_event(job.id, "queued")
            models.register(model)
            assert models.list() == [model], "what was written is seen at once"
            assert 1 / count

    with pytest.raises(ZeroDivisionError):
        write(0)
    assert jobs.get(job.id) == job
    assert len(jobs.events(job.id).items) == 2
    assert models.list() == []
    write(1)
    assert jobs.get(job.id).status == "queued"
    assert models.list() == [model]


def test_a_database_whose_folder_was_deleted_is_no_longer_in_place(
    database: Database, jobs: JobStore, tmp_path: Path
) -> None:
    assert database.is_in_place()
    (tmp_path / "home").rename(tmp_path / "gone")
    assert not database.is_in_place()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "emojitune.db").write_bytes(b"")
    assert not database.is_in_place(), "another file of that name is not the one that was opened"
    with pytest.raises(StorageError, match="no longer the one that was opened"):
        jobs.create(model="m", training_file="file-a", hyperparameters={})


def test_crashes_are_counted_from_the_last_step(jobs: JobStore) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    assert jobs.events_since_step(job.id, "death-") == 0
    for worker in ("a", "b"):
        jobs.add_event(job.id, "died", key=f"death-{worker}")
    assert jobs.events_since_step(job.id, "death-") == 2
    jobs.add_event(job.id, "Step 1/9", type="metrics", data={"step": 1}, key="step-1")
    assert jobs.events_since_step(job.id, "death-") == 0
    jobs.add_event(job.id, "died", key="death-c")
    jobs.add_event(job.id, "Step 1/9", type="metrics", data={"step": 1}, key="step-1")
    assert jobs.events_since_step(job.id, "death-") == 1, (
        "a step that was reported before is no progress"
    )


def test_a_database_on_a_full_disk_reports_it_and_keeps_its_rows(
    database: Database, jobs: JobStore
) -> None:
    made = [jobs.create(model="m", training_file="file-a", hyperparameters={}).id]

    def room(pages: str) -> None:
        with database.transaction() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for _ in range(1000):
            job = jobs.create(model="m" * 1000, training_file="file-a", hyperparameters={})
            made.append(job.id)

    room("1")  # that is: as many as it has
    with pytest.raises(StorageError, match="disk is full") as error:
        fill()
    assert error.value.code == "disk_full"
    assert [job.id for job in jobs.unfinished()] == made
    room("1000000")
    made.append(jobs.create(model="m", training_file="file-a", hyperparameters={}).id)
    assert [job.id for job in jobs.unfinished()] == made


def test_a_database_that_another_process_locks_is_reported_as_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emojitune.store.database._BUSY_SECONDS", 0.1)
    database = open_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / "emojitune.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailableError, match="busy"):
            JobStore(database, "default").create(
                model="m", training_file="file-a", hyperparameters={}
            )
    assert JobStore(database, "default").create(
        model="m", training_file="file-a", hyperparameters={}
    )
    database.close()
