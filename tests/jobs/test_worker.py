"""A worker serves the project of its job: what it reads and what it makes are that project's."""

import json
from pathlib import Path

import pytest

from emojitune.jobs import states
from emojitune.jobs.stores import open_stores
from emojitune.jobs.worker import Worker
from emojitune.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(
        home=tmp_path, base_model=str(tiny_base), device="cpu", dtype="float32", threads=1
    )


def test_what_a_job_makes_is_its_projects(settings: Settings) -> None:
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
    """Paused between the worker's look at the job and its putting it back into the queue."""
    stores = open_stores(settings, "default")
    job = stores.jobs.create(model="m", training_file="file-a", hyperparameters={})
    states.validated(stores.jobs, job.id)
    states.move(stores.jobs, job.id, "running")
    worker = Worker(job.id, "worker-1", settings)
    running = stores.jobs.get(job.id)
    states.move(stores.jobs, job.id, "paused")
    worker._stores.jobs.get = lambda _: running  # type: ignore[method-assign]
    assert stores.leases.claim(job.id, "worker-1", 60)
    worker._requeue()
    assert stores.jobs.get(job.id).status == "paused"
