from collections.abc import Iterator
from pathlib import Path

import pytest

from emojitune.errors import InvalidStateError
from emojitune.jobs.states import TERMINAL, TRANSITIONS, move
from emojitune.store.database import open_database
from emojitune.store.jobs import JobStore


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobStore]:
    database = open_database(tmp_path)
    yield JobStore(database, "default")
    database.close()


def test_nothing_follows_a_terminal_state_and_something_follows_every_other() -> None:
    assert {state for state, following in TRANSITIONS.items() if not following} == TERMINAL
    assert set().union(*TRANSITIONS.values()) <= set(TRANSITIONS)


def test_a_job_goes_its_way_and_no_other(jobs: JobStore) -> None:
    job = jobs.create(model="m", training_file="file-a", hyperparameters={})
    with pytest.raises(InvalidStateError, match="cannot become running: only a job that is queued"):
        move(jobs, job.id, "running")
    for state in ("queued", "running", "succeeded"):
        job = move(jobs, job.id, state, trained_tokens=7)
        assert (job.status, job.trained_tokens) == (state, 7)
    with pytest.raises(InvalidStateError, match="this one is succeeded"):
        move(jobs, job.id, "cancelled")
