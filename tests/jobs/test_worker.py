"""A worker works in the project of its job, and reports nothing of a job that was stopped."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emojitune.dataset.validation import DatasetReport
from emojitune.jobs import pipeline, prepare, states
from emojitune.jobs.job_log import JobLog
from emojitune.jobs.worker import Worker
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores, open_stores


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(
        home=tmp_path, base_model=str(tiny_base), device="cpu", dtype="float32", threads=1
    )


def test_results_of_a_job_belong_to_its_project(settings: Settings) -> None:
    mine, yours = open_stores(settings, "team"), open_stores(settings, "default")
    row = {"messages": [{"role": role, "content": "(yawn)"} for role in ("user", "assistant")]}
    content = [(json.dumps(row) + "\n").encode()] * 10
    file = mine.files.add(content, filename="f.jsonl", purpose="fine-tune")
    job = mine.jobs.create(
        model="gpt-3.5-turbo-0125",
        training_file=file.id,
        hyperparameters={"n_epochs": 1, "batch_size": 10},
    )
    Worker(job.id, "worker-1", settings).work()
    job = mine.jobs.get(job.id)
    assert job.status == "succeeded", job.error
    assert mine.files.get(job.result_files[0]).purpose == "fine-tune-results"
    assert [model.name for model in mine.models.list()] == [job.fine_tuned_model]
    assert (yours.models.list(), yours.files.list().items) == ([], ())


def test_a_job_reads_no_file_of_another_project(settings: Settings) -> None:
    mine, yours = open_stores(settings, "team"), open_stores(settings, "default")
    file = yours.files.add([b"{}\n"], filename="f.jsonl", purpose="fine-tune")
    job = mine.jobs.create(model="gpt-3.5-turbo-0125", training_file=file.id, hyperparameters={})
    Worker(job.id, "worker-1", settings).work()
    error = mine.jobs.get(job.id).error
    assert error is not None
    assert error.code == "invalid_training_file"
    assert f"{file.id} was deleted before it was used" in error.message


def test_a_job_that_is_paused_as_its_worker_goes_stays_paused(settings: Settings) -> None:
    stores = open_stores(settings, "default")
    job = stores.jobs.create(model="m", training_file="file-a", hyperparameters={})
    states.queue_validated(stores, job.id)
    states.JOB.move(stores.jobs, job.id, "running")
    worker = Worker(job.id, "worker-1", settings)
    assert stores.leases.claim(job.id, "worker-1", 60)
    states.JOB.move(stores.jobs, job.id, "paused")
    worker._requeue()
    assert stores.jobs.get(job.id).status == "paused"


def change(job: Job, stores: Stores, what: str) -> None:
    """Change a job's status as the server does for a request to cancel, pause or resume it."""
    with stores.transaction():
        if what == "resumed":
            states.resume(stores.jobs, job.id)
        else:
            states.JOB.move(stores.jobs, job.id, what)
        stores.jobs.add_event(job.id, what)


def events_of(job: Job, stores: Stores) -> list[str]:
    """A job's steps, checkpoints and changes of status, the oldest first, in brief."""
    messages = [event.message for event in reversed(stores.jobs.events(job.id, limit=100).items)]
    wanted = re.compile(r"Step \d|Checkpoint|cancelled|paused|resumed")
    return [found[0] for found in map(wanted.match, messages) if found]


@pytest.fixture
def small(settings: Settings) -> tuple[Job, Stores]:
    """A job of two epochs with two steps each."""
    stores = open_stores(settings, "default")
    rows = [
        [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "(number)"}]
        for n in range(10)
    ]
    content = [(json.dumps({"messages": row}) + "\n").encode() for row in rows]
    file = stores.files.add(content, filename="f.jsonl", purpose="fine-tune")
    hyperparameters = {"n_epochs": 2, "batch_size": 5}
    job = stores.jobs.create(
        model="gpt-3.5-turbo-0125", training_file=file.id, hyperparameters=hyperparameters
    )
    return job, stores


def stop_before(
    write: tuple[object, str], call: int, stop: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody stops the job just before the worker stores what it has done."""
    store, calls = getattr(*write), itertools.count(1)

    def stopped(*arguments: Any) -> None:
        if next(calls) == call:
            stop()
        store(*arguments)

    monkeypatch.setattr(*write, stopped)


EVENTS = ["Step 1", "Step 2", "Checkpoint", "Step 3", "Step 4"]


def test_a_file_is_parsed_once(
    small: tuple[Job, Stores], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, stores = small
    load_report, read = prepare.load_report, []

    def count(path: Path, **named: Any) -> DatasetReport:
        read.append(path)
        return load_report(path, **named)

    monkeypatch.setattr(prepare, "load_report", count)
    Worker(job.id, "worker-1", settings).work()
    assert stores.jobs.get(job.id).status == "succeeded"
    assert read == [stores.files.path(job.training_file)]


STEP, PUBLISH = (JobLog, "step"), (pipeline, "publish")
STOPS = [(STEP, 1, 0), (STEP, 2, 1), (PUBLISH, 1, 2)]


@pytest.mark.parametrize(("write", "call", "reported"), STOPS)
def test_a_cancelled_job_gets_no_more_events_or_models(
    small: tuple[Job, Stores],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    write: tuple[object, str],
    call: int,
    reported: int,
) -> None:
    job, stores = small
    stop_before(write, call, lambda: change(job, stores, "cancelled"), monkeypatch)
    Worker(job.id, "worker-1", settings).work()
    assert events_of(job, stores) == [*EVENTS[:reported], "cancelled"]
    assert stores.jobs.checkpoints(job.id).items == ()
    assert stores.models.list() == []
    assert not list(settings.adapters.glob("*"))


@pytest.mark.parametrize(("write", "call", "reported"), STOPS)
@pytest.mark.parametrize("at_once", [False, True])
def test_steps_of_a_paused_job_are_reported_when_it_is_resumed(
    small: tuple[Job, Stores],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    write: tuple[object, str],
    call: int,
    reported: int,
    at_once: bool,
) -> None:
    job, stores = small

    def stop() -> None:
        change(job, stores, "paused")
        if at_once:  # before its worker even knows of the pause
            change(job, stores, "resumed")

    with monkeypatch.context() as patch:
        stop_before(write, call, stop, patch)
        Worker(job.id, "worker-1", settings).work()
    saved = settings.runs / job.id / "checkpoints" / f"step-{min(reported + 1, 2)}"
    assert saved.exists(), "no step is lost"
    changes = ["paused", "resumed"]
    assert events_of(job, stores) == [*EVENTS[:reported], *changes[: 1 + at_once]]
    if not at_once:
        change(job, stores, "resumed")
    Worker(job.id, "worker-2", settings).work()
    assert events_of(job, stores) == [*EVENTS[:reported], *changes, *EVENTS[reported:]]
    assert stores.jobs.get(job.id).status == "succeeded"
