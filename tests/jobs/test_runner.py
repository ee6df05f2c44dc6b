"""A job that is interrupted at the worst moments still ends with all that it should have."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emojitune.jobs import runner
from emojitune.jobs.worker import open_stores
from emojitune.settings import Settings
from emojitune.store.jobs import Job


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path) -> Settings:
    return Settings(
        home=tmp_path, base_model=str(tiny_base), device="cpu", dtype="float32", threads=1
    )


@pytest.fixture
def stores(settings: Settings) -> runner.Stores:
    return open_stores(settings)


@pytest.fixture
def job(stores: runner.Stores) -> Iterator[Job]:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"number {n}"},
                {"role": "assistant", "content": "(number)"},
            ]
        }
        for n in range(10)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = stores.files.add([lines], filename="f.jsonl", purpose="fine-tune")
    made = stores.jobs.create(
        model="gpt-3.5-turbo-0125",
        training_file=file.id,
        hyperparameters={"n_epochs": 2, "batch_size": 5},
    )
    runner.validate(made, stores)
    return stores.jobs.get(made.id)


def run(job: Job, stores: runner.Stores, settings: Settings, check: Callable[[], None]) -> Job:
    runner.run(stores.jobs.get(job.id), stores, settings, check)
    return stores.jobs.get(job.id)


def assert_whole(job: Job, stores: runner.Stores) -> None:
    assert job.status == "succeeded", job.error
    checkpoints = stores.jobs.checkpoints(job.id).items
    assert [checkpoint.step for checkpoint in checkpoints] == [4, 2]
    assert checkpoints[0].model == job.fine_tuned_model
    assert all("train_loss" in checkpoint.metrics for checkpoint in checkpoints)
    for checkpoint in checkpoints:
        assert stores.models.get(checkpoint.model).job_id == job.id
    steps = [event for event in stores.jobs.events(job.id, limit=100).items if event.data]
    assert [event.data["step"] for event in steps] == [4, 3, 2, 1]


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_interruption_at_an_epochs_end_loses_no_checkpoint(
    job: Job, stores: runner.Stores, settings: Settings, epoch: int
) -> None:
    saved = settings.runs / job.id / "checkpoints" / f"epoch-{epoch}"

    def check() -> None:
        if saved.exists():
            raise runner.Interrupted

    with pytest.raises(runner.Interrupted):
        run(job, stores, settings, check)
    assert stores.jobs.checkpoints(job.id).items[0].step == 2 * epoch
    assert_whole(run(job, stores, settings, lambda: None), stores)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_crash_between_saving_and_registering_loses_none_either(
    job: Job,
    stores: runner.Stores,
    settings: Settings,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    register = runner._Run._register

    def crash(self: Any, saved: Any, *args: Any, **named: Any) -> None:
        if saved.epoch == epoch:
            raise runner.Interrupted
        register(self, saved, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(runner._Run, "_register", crash)
        with pytest.raises(runner.Interrupted):
            run(job, stores, settings, lambda: None)
    assert_whole(run(job, stores, settings, lambda: None), stores)
