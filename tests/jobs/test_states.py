from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from emojitune.errors import InvalidStateError
from emojitune.jobs.states import TERMINAL, TRANSITIONS, move, resume, validated
from emojitune.store.database import Database, open_database
from emojitune.store.jobs import JobStore


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobStore]:
    database = open_database(tmp_path)
    yield JobStore(database, "default")
    database.close()


def test_nothing_follows_a_terminal_state_and_something_follows_every_other() -> None:
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL
    assert set().union(*TRANSITIONS.values()) <= set(TRANSITIONS)


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", [*TRANSITIONS, "lost"])
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
    if after in TRANSITIONS[before]:
        set_status(database, job.id, after)
        assert JobStore(database, "default").get(job.id).status == after
    else:
        with pytest.raises(IntegrityError, match="a job cannot go from its status to that one"):
            set_status(database, job.id, after)
        assert JobStore(database, "default").get(job.id).status == before
    database.close()


def set_status(database: Database, job_id: str, status: str) -> None:
    with database.transaction() as connection:
        asked = {"status": status, "id": job_id}
        connection.execute(text("UPDATE jobs SET status = :status WHERE id = :id"), asked)


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


def test_a_job_goes_its_way_and_no_other(jobs: JobStore) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    with pytest.raises(InvalidStateError, match="cannot become running: only a job that is queued"):
        move(jobs, job.id, "running")
    for state in ("queued", "running", "succeeded"):
        job = move(jobs, job.id, state, trained_tokens=7)
        assert (job.status, job.trained_tokens) == (state, 7)
    with pytest.raises(InvalidStateError, match="this one is succeeded"):
        move(jobs, job.id, "cancelled")


def test_a_job_that_is_paused_while_it_is_validated_goes_back_there(jobs: JobStore) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    move(jobs, job.id, "paused")
    with pytest.raises(InvalidStateError, match="this one is paused"):
        validated(jobs, job.id)  # whoever was at it must not wake it up
    assert resume(jobs, job.id).status == "validating_files"
    assert validated(jobs, job.id).status == "queued"
    move(jobs, job.id, "paused")
    assert resume(jobs, job.id).status == "queued"
    with pytest.raises(InvalidStateError, match="this one is queued"):
        resume(jobs, job.id)
