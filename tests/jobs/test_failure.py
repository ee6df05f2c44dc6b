"""A job whose worker crashes is queued again, and fails after too many crashes."""

import signal
from pathlib import Path

import pytest

from emojitune.errors import ConversationError
from emojitune.jobs import failure
from emojitune.jobs.failure import Crash
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores, open_stores


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return open_stores(Settings(home=tmp_path), "default")


@pytest.fixture
def job(stores: Stores) -> Job:
    made = stores.jobs.create(model="m", training_file="file-a", hyperparameters={})
    stores.jobs.transition(made.id, "queued", sources=["validating_files"])
    return made


def crash(
    job: Job,
    stores: Stores,
    number: int,
    *,
    status: int = -signal.SIGKILL,
    out_of_memory: bool = False,
) -> Job:
    if stores.jobs.get(job.id).status == "queued":
        stores.jobs.transition(job.id, "running", sources=["queued"])
    log = Path("/home/worker.log")
    end = Crash(f"worker-{number}", status, out_of_memory=out_of_memory, log=log)
    failure.recover(stores.jobs.get(job.id), stores, end)
    return stores.jobs.get(job.id)


def test_a_job_is_resumed_after_a_crash_and_reports_it(job: Job, stores: Stores) -> None:
    assert crash(job, stores, 1).status == "queued"
    event = stores.jobs.events(job.id).items[0]
    assert event.level == "warn"
    assert "killed by SIGKILL" in event.message
    assert "resumes from its last checkpoint" in event.message


def test_the_third_crash_without_a_step_in_between_fails_the_job(
    job: Job, stores: Stores, tmp_path: Path
) -> None:
    crash(job, stores, 1)
    crash(job, stores, 2)
    stores = open_stores(Settings(home=tmp_path), "default")  # the count outlives the server
    failed = crash(job, stores, 3)
    assert failed.status == "failed"
    assert failed.error
    assert failed.error.code == "server_error"
    for words in ("3 times", "SIGKILL", "/home/worker.log", "smaller batch_size"):
        assert words in failed.error.message
    assert stores.jobs.events(job.id).items[0].message == failed.error.message


def test_a_conversation_that_the_template_refuses_is_the_fault_of_its_messages(
    job: Job, stores: Stores
) -> None:
    with failure.fail_on_error(job, stores):
        raise ConversationError("Roles must alternate.")
    error = stores.jobs.get(job.id).error
    assert error
    assert (error.code, error.message, error.param) == (
        "server_error",
        "Roles must alternate.",
        "messages",
    )


def test_a_disk_that_stays_full_is_the_reason(job: Job, stores: Stores) -> None:
    for number in range(3):
        failed = crash(job, stores, number, status=failure.DISK_FULL)
    assert failed.error
    assert failed.error.code == "disk_full"
    messages = [event.message for event in stores.jobs.events(job.id).items]
    assert messages[0] == failed.error.message
    assert "(the disk is full)" in messages[1]


def test_a_job_that_gets_further_each_time_is_never_given_up(job: Job, stores: Stores) -> None:
    for number in range(10):
        assert crash(job, stores, number).status == "queued"
        if number % 2:
            key = f"step-{number}"
            stores.jobs.add_event(job.id, "Step", type="metrics", data={"step": number}, key=key)


def test_a_lack_of_memory_is_the_reason_where_the_system_reports_it(
    job: Job, stores: Stores
) -> None:
    for number in range(3):
        crash(job, stores, number, out_of_memory=True)
    failed = stores.jobs.get(job.id)
    assert failed.error
    assert failed.error.code == "out_of_memory"
    assert "ran out of memory" in failed.error.message


def test_a_paused_job_stays_paused_whatever_its_worker_does(job: Job, stores: Stores) -> None:
    stores.jobs.transition(job.id, "paused", sources=["queued"])
    for number in range(4):
        assert crash(job, stores, number).status == "paused"


def test_the_systems_count_of_oom_kills_can_be_read() -> None:
    assert failure.oom_kills() >= 0
