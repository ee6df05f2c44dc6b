"""A job that is interrupted at the worst moments still ends complete."""

import errno
import json
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from emojitune.jobs import pipeline
from emojitune.jobs.prepare import Prepared
from emojitune.jobs.publish import EpochCheckpoint
from emojitune.jobs.run import Control, Interrupted, Run
from emojitune.models import available_memory
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores, open_stores
from emojitune.training import loop, memory
from emojitune.training.config import TrainingConfig
from emojitune.training.gradients import ThreadedGradients


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(
        home=tmp_path, base_model=str(tiny_base), device="cpu", dtype="float32", threads=1
    )


@pytest.fixture
def stores(settings: Settings) -> Stores:
    return open_stores(settings, "default")


@pytest.fixture
def job(stores: Stores) -> Job:
    return job_of([f"number {n}" for n in range(10)], stores)


def job_of(questions: Sequence[str], stores: Stores) -> Job:
    rows = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": "(number)"},
            ]
        }
        for question in questions
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = stores.files.add([lines], filename="f.jsonl", purpose="fine-tune")
    made = stores.jobs.create(
        model="gpt-3.5-turbo-0125",
        training_file=file.id,
        hyperparameters={"n_epochs": 2, "batch_size": 5},
    )
    pipeline.validate(made, stores)
    return stores.jobs.get(made.id)


class Patient:
    """Lets a job run to its end, unless `stopping` says that it has to stop."""

    def __init__(self, stopping: Callable[[], bool] = lambda: False) -> None:
        self.stopping = stopping

    def check(self) -> None: ...

    def stop(self) -> None: ...

    def fence(self, statuses: Collection[str]) -> AbstractContextManager[object]:
        return nullcontext()


def run(job: Job, stores: Stores, settings: Settings, control: Control | None = None) -> Job:
    job = stores.jobs.get(job.id)
    job = pipeline.start(job, stores) if job.status == "queued" else job
    pipeline.run(job, stores, settings, control or Patient())
    return stores.jobs.get(job.id)


def assert_complete(job: Job, stores: Stores) -> None:
    assert job.status == "succeeded", job.error
    checkpoints = stores.jobs.checkpoints(job.id).items
    assert [checkpoint.step for checkpoint in checkpoints] == [4, 2]
    assert checkpoints[0].model == job.fine_tuned_model
    assert all("train_loss" in checkpoint.metrics for checkpoint in checkpoints)
    for checkpoint in checkpoints:
        assert stores.models.get(checkpoint.model).job_id == job.id
    steps = [event for event in stores.jobs.events(job.id, limit=100).items if event.data]
    assert [event.data["step"] for event in steps] == [4, 3, 2, 1]


@pytest.mark.parametrize("system", ["Route it.", ""])
def test_a_model_knows_the_system_prompt_of_its_training_file(
    stores: Stores, settings: Settings, system: str
) -> None:
    opening = [{"role": "system", "content": system}] if system else []
    said = [[{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "(number)"}]
            for n in range(10)]  # fmt: skip
    lines = "".join(json.dumps({"messages": opening + one}) + "\n" for one in said).encode()
    file = stores.files.add([lines], filename="f.jsonl", purpose="fine-tune")
    made = stores.jobs.create(
        model="gpt-3.5-turbo-0125", training_file=file.id, hyperparameters={"n_epochs": 1}
    )
    pipeline.validate(made, stores)
    name = run(made, stores, settings).fine_tuned_model
    assert name is not None
    assert stores.models.get(name).system_prompt == system


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_interruption_at_an_epochs_end_loses_no_checkpoint(
    job: Job, stores: Stores, settings: Settings, epoch: int
) -> None:
    saved = settings.runs / job.id / "checkpoints" / f"step-{2 * epoch}"
    with pytest.raises(Interrupted):
        run(job, stores, settings, Patient(saved.exists))
    assert stores.jobs.checkpoints(job.id).items[0].step == 2 * epoch
    assert_complete(run(job, stores, settings), stores)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_crash_between_saving_and_publishing_loses_no_checkpoint(
    job: Job,
    stores: Stores,
    settings: Settings,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish = pipeline.publish

    def crash(run: Run, prepared: Prepared, checkpoint: EpochCheckpoint) -> None:
        if checkpoint.step == 2 * epoch:
            raise Interrupted
        publish(run, prepared, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "publish", crash)
        with pytest.raises(Interrupted):
            run(job, stores, settings)
    assert_complete(run(job, stores, settings), stores)


@pytest.mark.parametrize(
    ("free", "words"),
    [(1, "the base model alone"), (10**9, "batch_size 5"), (10**9, "examples (lines 3, 8)")],
)
def test_a_job_that_cannot_fit_into_memory_is_refused_before_it_starts(
    job: Job,
    stores: Stores,
    settings: Settings,
    free: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(available_memory, "available_bytes", lambda: free)
    monkeypatch.setattr(memory, "training_bytes", lambda *_, **__: (2 * 10**9, [7, 2]))
    failed = run(job, stores, settings)
    assert failed.status == "failed"
    assert failed.error
    assert failed.error.code == "out_of_memory"
    assert words in failed.error.message
    assert "create the job again" in failed.error.message
    assert stores.jobs.events(job.id).items[0].message == failed.error.message


def test_a_line_that_is_far_too_long_is_cut_and_reported(
    stores: Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, configs = loop.train, []

    def spy(
        model: Any, device: Any, examples: Any, config: TrainingConfig, *rest: Any, **named: Any
    ):
        configs.append(config)
        return train(model, device, examples, config, *rest, **named)

    monkeypatch.setattr(loop, "train", spy)
    questions = [f"number {n}" for n in range(11)] + ["word " * 2000]
    done = run(job_of(questions, stores), stores, settings)
    assert done.status == "succeeded", done.error
    events = stores.jobs.events(done.id, limit=100).items
    assert [event.message for event in events if event.level == "warn"] == [
        "Training file: 1 of 12 examples cut at 256 tokens, where the base model reads no further "
        "(line 12); no reply is left to learn in line 12"
    ]
    assert [config.max_tokens for config in configs] == [256], "the base model's context"
    assert done.trained_tokens is not None
    assert 2 * 256 < done.trained_tokens < 2 * (256 + 11 * 60)


def out_of_memory_of_a_gpu(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")


def out_of_memory_of_a_processor(*_: Any) -> None:
    torch.empty(10**15)  # no allocator has so much


@pytest.mark.parametrize("end", [out_of_memory_of_a_gpu, out_of_memory_of_a_processor])
def test_a_job_that_runs_out_of_memory_fails_in_words(
    job: Job,
    stores: Stores,
    settings: Settings,
    end: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ThreadedGradients, "backward", end)
    failed = run(job, stores, settings)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.code == "out_of_memory"
    assert "smaller batch_size" in failed.error.message
    assert "llocate" in failed.error.message, "the library's own words"


def test_any_other_error_is_not_taken_for_a_lack_of_memory(
    job: Job, stores: Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadedGradients, "backward", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        run(job, stores, settings)


def test_a_full_disk_fails_the_job_in_words_and_harms_nothing_else(
    job: Job, stores: Stores, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if "step-4" in str(target):  # the second epoch's
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    failed = run(job, stores, settings)
    assert failed.error
    assert failed.error.code == "disk_full"
    assert "disk is full" in failed.error.message
    [checkpoint] = stores.jobs.checkpoints(job.id).items
    assert checkpoint.step == 2, "the first epoch's model stays"
    assert stores.files.path(job.training_file).exists()


def test_a_base_model_that_is_gone_fails_the_job_in_words(
    job: Job, stores: Stores, settings: Settings, tmp_path: Path
) -> None:
    elsewhere = settings.model_copy(update={"base_model": str(tmp_path)})
    failed = run(job, stores, elsewhere)
    assert failed.error
    assert "could not be loaded" in failed.error.message
    assert "config.json" in failed.error.message


def test_a_damaged_adapter_to_continue_from_fails_the_job_in_words(
    job: Job, stores: Stores, settings: Settings
) -> None:
    first = run(job, stores, settings)
    assert first.fine_tuned_model
    folder = settings.adapters / stores.models.get(first.fine_tuned_model).adapter
    os.truncate(folder / "adapter_model.safetensors", 100)
    second = stores.jobs.create(
        model=first.fine_tuned_model, training_file=job.training_file, hyperparameters={}
    )
    pipeline.validate(second, stores)
    failed = run(second, stores, settings)
    assert failed.error
    assert failed.error.code == "adapter_damaged"


def test_a_training_file_whose_bytes_are_gone_fails_the_job_in_words(
    job: Job, stores: Stores, settings: Settings
) -> None:
    stores.files.path(job.training_file).unlink()
    failed = run(job, stores, settings)
    assert failed.error
    assert failed.error.code == "invalid_training_file"
    assert "Upload it again" in failed.error.message


def test_a_job_that_is_stopped_and_resumed_ends_complete(
    job: Job, stores: Stores, settings: Settings
) -> None:
    answers = iter([False])  # once before training; then after the first step
    with pytest.raises(Interrupted):
        run(job, stores, settings, Patient(lambda: next(answers, True)))
    assert (settings.runs / job.id / "checkpoints" / "step-1").exists()
    assert_complete(run(job, stores, settings), stores)


def test_a_step_is_reported_before_the_next_begins(
    job: Job, stores: Stores, settings: Settings
) -> None:
    counts = set()

    def look() -> bool:  # called after steps 1 and 3, which end no epoch
        events = stores.jobs.events(job.id, limit=100).items
        counts.add(sum(event.type == "metrics" for event in events))
        return False

    assert_complete(run(job, stores, settings, Patient(look)), stores)
    assert {1, 3} <= counts
