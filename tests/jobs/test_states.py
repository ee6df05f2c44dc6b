from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from emojitune.errors import InvalidStateError
from emojitune.jobs.states import BATCH, JOB, StateMachine, queue_validated, resume
from emojitune.settings import Settings
from emojitune.store import batches, jobs
from emojitune.store.database import Database, open_database
from emojitune.store.jobs import JobStore
from emojitune.store.stores import Stores, open_stores


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    opened = open_stores(Settings(home=tmp_path), "default")
    yield opened
    opened.database.close()


@pytest.mark.parametrize(
    ("machine", "first", "finished"),
    [(JOB, "validating_files", jobs.FINISHED), (BATCH, "validating", batches.FINISHED)],
)
def test_every_state_is_reached_and_the_finished_ones_are_left_by_none(
    machine: StateMachine, first: str, finished: tuple[str, ...]
) -> None:
    followers = set().union(*machine.transitions.values())
    assert followers | {first} == set(machine.transitions)
    assert machine.terminal == set(finished)
    assert machine.unfinished == set(machine.transitions) - set(finished)


@pytest.mark.parametrize("before", JOB.transitions)
@pytest.mark.parametrize("after", [*JOB.transitions, "lost"])
def test_sql_allows_the_same_transitions_and_no_other(
    tmp_path: Path, before: str, after: str
) -> None:
    database = open_database(tmp_path)
    job = JobStore(database, "default").create(
        model="m", training_file="file-a", hyperparameters={}
    )
    ways = {"validating_files": [], "queued": ["queued"], "running": ["queued", "running"]}
    for status in ways.get(before, ["queued", "running", before]):
        set_status(database, job.id, status)
    if after in JOB.transitions[before]:
        set_status(database, job.id, after)
        assert JobStore(database, "default").get(job.id).status == after
    else:
        with pytest.raises(IntegrityError, match="a job cannot go from its status to that one"):
            set_status(database, job.id, after)
        assert JobStore(database, "default").get(job.id).status == before
    database.close()


def set_status(database: Database, job_id: str, status: str) -> None:
    with database.transaction() as connection:
        values = {"status": status, "id": job_id}
        connection.execute(text("UPDATE jobs SET status = :status WHERE id = :id"), values)


def test_sql_lets_a_job_begin_only_at_the_beginning(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    JobStore(database, "default").create(model="m", training_file="file-a", hyperparameters={})
    copy = (
        "INSERT INTO jobs (id, created_at, status, model, training_file, seed, hyperparameters, "
        "integrations, result_files) SELECT 'ftjob-x', created_at, 'running', model, "
        "training_file, seed, hyperparameters, integrations, result_files FROM jobs"
    )
    with (
        pytest.raises(IntegrityError, match="files being validated"),
        database.transaction() as writing,
    ):
        writing.execute(text(copy))
    database.close()


@pytest.mark.parametrize("start", BATCH.transitions)
@pytest.mark.parametrize("to", sorted(set(BATCH.transitions) - {"validating"}))
def test_a_batch_moves_along_the_table_only(stores: Stores, start: str, to: str) -> None:
    batch_id = stores.batches.create(
        endpoint="/v1/embeddings", input_file_id="file-1", completion_window="24h"
    ).id
    if start != "validating":
        stores.batches.transition(batch_id, start, sources=BATCH.transitions)
    if to in BATCH.transitions[start]:
        moved = BATCH.move(stores.batches, batch_id, to)
        assert moved.status == to
        assert getattr(moved, f"{to}_at") is not None
    else:
        with pytest.raises(InvalidStateError, match=f"this one is {start}"):
            BATCH.move(stores.batches, batch_id, to)
        assert stores.batches.get(batch_id).status == start


def test_a_job_goes_its_way_and_no_other(stores: Stores) -> None:
    job = stores.jobs.create(model="m", training_file="file-a", hyperparameters={})
    with pytest.raises(InvalidStateError, match="cannot become running: only a job that is queued"):
        JOB.move(stores.jobs, job.id, "running")
    for state in ("queued", "running", "succeeded"):
        job = JOB.move(stores.jobs, job.id, state, trained_tokens=7)
        assert (job.status, job.trained_tokens) == (state, 7)
    with pytest.raises(InvalidStateError, match="this one is succeeded"):
        JOB.move(stores.jobs, job.id, "cancelled")


def test_a_job_that_is_paused_while_it_is_validated_goes_back_there(stores: Stores) -> None:
    job = stores.jobs.create(model="m", training_file="file-a", hyperparameters={})
    JOB.move(stores.jobs, job.id, "paused")
    with pytest.raises(InvalidStateError, match="this one is paused"):
        queue_validated(stores, job.id)  # whoever was at it must not wake it up
    assert resume(stores.jobs, job.id).status == "validating_files"
    assert queue_validated(stores, job.id).status == "queued"
    JOB.move(stores.jobs, job.id, "paused")
    assert resume(stores.jobs, job.id).status == "queued"
    with pytest.raises(InvalidStateError, match="this one is queued"):
        resume(stores.jobs, job.id)
