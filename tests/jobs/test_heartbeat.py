"""A worker's heartbeat, and the lock on its run's folder."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from emojitune.jobs import heartbeat as heartbeat_module
from emojitune.jobs import process_lock
from emojitune.jobs.heartbeat import Heartbeat, Interrupted
from emojitune.store.jobs import Job, JobStore
from emojitune.store.leases import LeaseStore


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL_SECONDS", "_RENEW_SECONDS"):
        monkeypatch.setattr(heartbeat_module, name, 0.02)


@pytest.fixture
def job(jobs: JobStore, leases: LeaseStore) -> Job:
    made = jobs.create(model="m", training_file="file-a", hyperparameters={})
    jobs.transition(made.id, "queued", sources=["validating_files"])
    assert leases.claim(made.id, "me", 0.5)
    return jobs.transition(made.id, "running", sources=["queued"])


def wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def lost(heartbeat: Heartbeat) -> bool:
    try:
        heartbeat.check()
    except Interrupted:
        return True
    return False


def test_a_heartbeat_renews_its_lease(leases: LeaseStore, job: Job) -> None:
    with Heartbeat(leases, job.id, "me", pytest.fail) as heartbeat:
        wait(lambda: leases.all()[0].expires_at > time.time() + 10)
        assert not heartbeat.stopping()
        assert not lost(heartbeat)


@pytest.mark.parametrize("status", ["paused", "queued"])
def test_a_job_that_is_resumed_later_is_left_after_its_next_checkpoint(
    jobs: JobStore, leases: LeaseStore, job: Job, status: str
) -> None:
    with Heartbeat(leases, job.id, "me", pytest.fail) as heartbeat:
        wait(lambda: heartbeat._ran)
        jobs.transition(job.id, status, sources=["running"])
        wait(heartbeat.stopping)
        assert not lost(heartbeat)


def test_a_cancelled_job_is_left_at_once(jobs: JobStore, leases: LeaseStore, job: Job) -> None:
    with Heartbeat(leases, job.id, "me", pytest.fail) as heartbeat:
        jobs.transition(job.id, "cancelled", sources=["running"])
        wait(lambda: lost(heartbeat))


def test_a_job_that_was_taken_over_is_left_at_once(
    jobs: JobStore, leases: LeaseStore, job: Job
) -> None:
    with Heartbeat(leases, job.id, "me", pytest.fail) as heartbeat:
        leases.release(job.id, "me")
        leases.claim(job.id, "another", 60)
        wait(lambda: lost(heartbeat))
    assert leases.all()[0].worker == "another"


def test_a_process_whose_main_thread_does_not_stop_is_ended(
    jobs: JobStore, leases: LeaseStore, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat_module, "_LEAVE_SECONDS", 0.1)
    ended = threading.Event()
    with Heartbeat(leases, job.id, "me", ended.set):
        jobs.transition(job.id, "cancelled", sources=["running"])
        assert ended.wait(10)


HOLDER = """
import pathlib, sys, time
from emojitune.jobs.process_lock import only_process
with only_process(pathlib.Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(600)
"""


def test_the_holder_of_a_run_is_found_and_killed_even_while_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_lock, "_LOCK_SECONDS", 0.1)
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(Timeout), process_lock.only_process(tmp_path):
            pass
        os.kill(holder.pid, signal.SIGSTOP)
        assert process_lock.kill_holder(tmp_path)
        assert holder.wait(10) == -signal.SIGKILL
    assert not process_lock.kill_holder(tmp_path)
    with process_lock.only_process(tmp_path):
        pass


def test_nothing_is_killed_where_no_process_works(tmp_path: Path) -> None:
    assert not process_lock.kill_holder(tmp_path)
    (tmp_path / "worker.pid").write_text(str(os.getpid()))
    (tmp_path / "worker.lock").touch()
    assert not process_lock.kill_holder(tmp_path)
