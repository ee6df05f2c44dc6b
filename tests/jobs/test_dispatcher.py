"""Workers that crash, hang or lose their server, with real processes."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from emojitune.disk import disk_full_error
from emojitune.jobs import dispatcher, failure, heartbeat, process_lock
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores, open_stores


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(
        home=tmp_path / "home", base_model=str(tiny_base), device="cpu", threads=1, dtype="float32"
    )


@pytest.fixture
def stores(settings: Settings) -> Stores:
    return open_stores(settings, "default")


@pytest.fixture
def running(settings: Settings) -> Iterator[Dispatcher]:
    started = Dispatcher(settings)
    yield started
    started.stop()


def create(stores: Stores, epochs: int = 50) -> Job:
    roles = ("user", "assistant")
    row = {"messages": [{"role": role, "content": "(number)"} for role in roles]}
    file = stores.files.add(
        [(json.dumps(row) + "\n").encode()] * 10, filename="f.jsonl", purpose="fine-tune"
    )
    hyperparameters = {"n_epochs": epochs, "batch_size": 1}
    return stores.jobs.create(
        model="gpt-3.5-turbo-0125", training_file=file.id, hyperparameters=hyperparameters, seed=1
    )


def wait(until: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps(stores: Stores, job: Job) -> list[int]:
    events = stores.jobs.events(job.id, limit=1000).items
    return [event.data["step"] for event in reversed(events) if event.type == "metrics"]


def pid_of(settings: Settings, job: Job) -> int:
    return int((settings.runs / job.id / "worker.pid").read_text())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_worker_that_had_to_be_killed_leaves_its_job_to_the_next_server(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_STOP_SECONDS", 0.0)
    job = create(stores)
    running = Dispatcher(settings)
    running.start()
    # It imports torch now, and reacts to nothing.
    wait(lambda: stores.jobs.get(job.id).status == "running")
    assert stores.leases.leased() == {job.id}
    running.stop()
    assert stores.leases.leased() == set()
    assert stores.jobs.get(job.id).status == "running"


def test_a_server_that_ends_saves_and_requeues_its_job_in_time(
    settings: Settings, stores: Stores
) -> None:
    job = create(stores)
    running = Dispatcher(settings)
    running.start()
    wait(lambda: len(steps(stores, job)) > 3)
    started = time.monotonic()
    running.stop()
    assert time.monotonic() - started < 10
    assert stores.jobs.get(job.id).status == "queued"
    saved = [path.name for path in (settings.runs / job.id / "checkpoints").iterdir()]
    last = max(int(name.removeprefix("step-")) for name in saved)
    assert last - steps(stores, job)[-1] in (0, 1), (
        "the step before the end is reported by the next run"
    )


@pytest.mark.parametrize("saving", [False, True])
def test_a_stopped_worker_is_replaced_and_writes_nothing_when_it_wakes_up(
    settings: Settings, stores: Stores, saving: bool
) -> None:
    """No process kills the worker: the fence alone must stop it, even while it is saving."""
    job = create(stores, epochs=500)
    half = settings.runs / job.id / "checkpoints" / "saving.partial"
    with worker(settings, job, "first") as first:
        wait(lambda: len(steps(stores, job)) > 3)
        stop(settings, first.pid, when=lambda: half.exists() == saving)
        stores.leases.renew(job.id, "first", -1)
        assert stores.leases.leased() == set()
        assert stores.leases.claim(job.id, "second", 600)
        reported, checkpoints = len(steps(stores, job)), checkpoints_of(settings, job)
        registered = stores.models.list()
        first.send_signal(signal.SIGCONT)
        assert first.wait(20) == 0, "it sees that it lost its job, and exits"
    assert len(steps(stores, job)) == reported
    assert checkpoints_of(settings, job) == checkpoints
    assert stores.jobs.get(job.id).status == "running"
    assert stores.leases.leased() == {job.id}
    assert stores.models.list() == registered, "not even an epoch's end was registered"


def test_a_worker_that_hangs_is_killed_and_its_job_is_resumed(
    settings: Settings, stores: Stores, running: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_EXPIRED_SECONDS", 0.1)
    job = create(stores)
    running.start()
    wait(lambda: len(steps(stores, job)) > 3)
    pid, [lease] = pid_of(settings, job), stores.leases.all()
    stop(settings, pid)
    stores.leases.renew(job.id, lease.worker, -1)  # its time runs out
    reported = len(steps(stores, job))
    wait(lambda: len(steps(stores, job)) > reported)
    assert gone(pid)
    reported = steps(stores, job)
    assert reported == list(range(1, len(reported) + 1))


def test_a_worker_that_lost_its_server_is_killed_by_the_next_one(
    settings: Settings, stores: Stores, running: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_lock, "_LOCK_SECONDS", 0.1)
    job = create(stores)
    with worker(settings, job, "orphan") as orphan:
        wait(lambda: len(steps(stores, job)) > 3)
        stop(settings, orphan.pid)  # or it would see by itself that its server is gone
        reported = len(steps(stores, job))
        running.start()
        assert orphan.wait(10) == -signal.SIGKILL
    wait(lambda: len(steps(stores, job)) > reported)


def test_a_job_of_a_dead_server_waits_for_no_clock(
    settings: Settings, stores: Stores, running: Dispatcher
) -> None:
    """A lease that is far from expired, as after a clock that jumped back, does not matter."""
    job = create(stores, epochs=1)
    assert stores.leases.claim(job.id, "worker-of-old", 3600)
    running.start()
    wait(lambda: stores.jobs.get(job.id).status == "succeeded")
    wait(lambda: not stores.leases.all())
    assert not (settings.runs / job.id / "checkpoints").exists()


def test_a_server_whose_home_was_deleted_starts_no_more_workers(
    settings: Settings,
    stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    started: list[Job] = []
    monkeypatch.setattr(dispatcher, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(Dispatcher, "_spawn", lambda _self, job, **_: started.append(job))
    job = create(stores)
    running = Dispatcher(settings)
    running.start()
    wait(lambda: job in started)
    shutil.rmtree(settings.home)
    time.sleep(0.2)
    count = len(started)
    time.sleep(0.3)
    assert len(started) == count
    assert not settings.home.exists(), "nor is it made again"
    running.stop()
    [message] = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"Jobs wait, and none is started: The database {settings.home}")


def test_a_job_whose_worker_cannot_run_fails(
    settings: Settings, stores: Stores, running: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    job = create(stores)
    running.start()
    wait(lambda: stores.jobs.get(job.id).status == "failed")
    error = stores.jobs.get(job.id).error
    assert error
    assert "3 times" in error.message


def test_checkpoints_of_a_job_that_was_cancelled_while_it_waited_are_removed(
    settings: Settings, stores: Stores, running: Dispatcher
) -> None:
    job = create(stores)
    checkpoints = settings.runs / job.id / "checkpoints"
    checkpoints.mkdir(parents=True)
    stores.jobs.transition(job.id, "queued", sources=["validating_files"])
    stores.jobs.transition(job.id, "paused", sources=["queued"])
    running.start()
    assert checkpoints.exists()
    stores.jobs.transition(job.id, "cancelled", sources=["paused"])
    running.wake()
    wait(lambda: not checkpoints.exists())


@pytest.mark.parametrize("status", ["paused", "cancelled"])
def test_pausing_and_cancelling_take_effect_at_once_whatever_the_worker_does(
    settings: Settings, stores: Stores, status: str
) -> None:
    """A worker imports torch for seconds, and then trains."""
    job = create(stores)
    with worker(settings, job, "worker") as process:
        wait(lambda: stores.jobs.get(job.id).status == "running")
        stores.jobs.transition(job.id, status, sources=["running"])
        assert process.wait(heartbeat._SAVE_SECONDS + 15) == 0
    assert stores.jobs.get(job.id).status == status
    assert stores.leases.all() == []


@contextmanager
def worker(settings: Settings, job: Job, name: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker without a server."""
    command = [sys.executable, "-m", "emojitune.jobs.worker", job.id, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(settings.model_dump_json(exclude={"api_key"}).encode() + b"\n")
        process.stdin.flush()
        yield process
        process.kill()


def stop(settings: Settings, pid: int, when: Callable[[], bool] = lambda: True) -> None:
    """Stop a process while it is not in the middle of a transaction: others would wait for it."""

    def stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        database = closing(sqlite3.connect(settings.home / "emojitune.db", timeout=0.1))
        with database as connection, suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            if when():
                return True
        os.kill(pid, signal.SIGCONT)
        return False

    wait(stopped)


def checkpoints_of(settings: Settings, job: Job) -> list[tuple[Path, int]]:
    """Files of the two newest checkpoints, which stay while another is saved."""
    folder = settings.runs / job.id / "checkpoints"
    newest = sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))
    return sorted((file, file.stat().st_mtime_ns) for one in newest[-2:] for file in one.rglob("*"))


def test_a_worker_killed_at_random_steps_makes_the_same_bytes(
    settings: Settings, stores: Stores, running: Dispatcher
) -> None:
    """SIGKILL twice, then a comparison with the same job undisturbed."""
    job = create(stores, epochs=12)
    running.start()
    for kill_after in sorted(random.sample(range(1, 80), 2)):
        wait(lambda count=kill_after: len(steps(stores, job)) >= count)
        with suppress(ProcessLookupError):
            os.kill(pid_of(settings, job), signal.SIGKILL)
    wait(lambda: stores.jobs.get(job.id).status == "succeeded")
    assert steps(stores, job) == list(range(1, 121))
    messages = [event.message for event in stores.jobs.events(job.id, limit=1000).items]
    for once in ("Fine-tuning job started", "The job has successfully completed"):
        assert messages.count(once) == 1

    again = create(stores, epochs=12)
    wait(lambda: stores.jobs.get(again.id).status == "succeeded")
    losses = [
        [event.data for event in stores.jobs.events(one.id, limit=1000).items if event.data]
        for one in (job, again)
    ]
    assert losses[0] == losses[1]
    for step in (100, 110, 120):  # the last three epochs
        first, second = (settings.adapters / f"{one.id}-step-{step}" for one in (job, again))
        for name in ("adapter_model.safetensors", "adapter_config.json", "emojitune.json"):
            assert (first / name).read_bytes() == (second / name).read_bytes()


def test_first_in_first_out_and_an_interrupted_job_keeps_its_place(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr(Dispatcher, "_spawn", lambda _self, job, **_: started.append(job.id))
    jobs = [create(stores).id for _ in range(4)]
    for job_id in jobs:
        stores.jobs.transition(job_id, "queued", sources=["validating_files"])
    stores.jobs.transition(jobs[2], "running", sources=["queued"])  # and lost its worker
    running = Dispatcher(settings.model_copy(update={"max_running_jobs": 3}))
    running.start()
    wait(lambda: len(started) >= 3)
    running.stop()
    assert started[:3] == [jobs[2], jobs[0], jobs[1]]


def test_a_disk_that_is_full_holds_a_crashed_workers_job_back_until_it_can_be_reported(
    settings: Settings, stores: Stores, running: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a worker would be started every second, and none of their crashes be reported."""
    noted, spawned = threading.Event(), []
    spawn, recover = Dispatcher._spawn, failure.recover

    def count(self: Dispatcher, job: Job, *, trains: bool) -> None:
        spawned.append(job.id)
        spawn(self, job, trains=trains)

    def refuse(*arguments: Any) -> None:
        if not noted.is_set():
            raise disk_full_error(settings.home)
        recover(*arguments)

    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    monkeypatch.setattr(Dispatcher, "_spawn", count)
    monkeypatch.setattr(failure, "recover", refuse)
    monkeypatch.setattr(dispatcher, "_POLL_SECONDS", 0.05)
    job = create(stores)
    running.start()
    wait(lambda: spawned)
    time.sleep(0.5)
    assert len(spawned) == 1
    noted.set()
    wait(lambda: stores.jobs.get(job.id).status == "failed")
    assert len(spawned) == 3
