"""Metrics for Weights & Biases, with a stand-in for the package that the project does not have."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emojitune.jobs.integrations import WandbRuns
from emojitune.store.database import open_database
from emojitune.store.jobs import Job, JobStore


class FakeRun:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, numbers: dict[str, Any], step: int) -> None:
        if numbers["train_loss"] < 0:
            raise RuntimeError("a negative loss")
        self.logged.append((step, numbers))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    made: list[FakeRun] = []

    def init(**settings: Any) -> FakeRun:
        made.append(FakeRun(**settings))
        return made[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return made


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    database = open_database(tmp_path)
    settings = {"project": "emoji", "name": None, "entity": "us", "tags": ["mine"]}
    yield JobStore(database, "default").create(
        model="gpt-3.5-turbo-0125",
        training_file="file-a",
        hyperparameters={"n_epochs": 3},
        integrations=[{"type": "wandb", "wandb": settings}],
    )
    database.close()


def test_metrics_go_into_an_offline_run_of_the_jobs_folder(
    runs: list[FakeRun], job: Job, tmp_path: Path
) -> None:
    reports: list[tuple[str, str]] = []
    metrics = WandbRuns(job, tmp_path / "run", lambda *report: reports.append(report))
    metrics.log({"step": 7, "total_steps": 9, "train_loss": 0.5})
    metrics.finish()
    [run] = runs
    assert (run.settings["project"], run.settings["entity"]) == ("emoji", "us")
    assert run.settings["name"] == job.id
    assert run.settings["mode"] == "offline"
    assert run.settings["dir"] == str(tmp_path / "run")
    assert {"mine", job.id} <= set(run.settings["tags"])
    assert run.logged == [(7, {"step": 7, "train_loss": 0.5})]
    assert run.finished
    [(level, message)] = reports
    assert level == "info"
    assert str(tmp_path / "run" / "wandb") in message


def test_an_error_of_the_package_does_not_fail_the_job(
    runs: list[FakeRun], job: Job, tmp_path: Path
) -> None:
    reports: list[tuple[str, str]] = []
    metrics = WandbRuns(job, tmp_path, lambda *report: reports.append(report))
    for step, loss in enumerate([0.5, -1.0, 0.25], start=1):
        metrics.log({"step": step, "train_loss": loss})
    metrics.finish()
    assert [step for step, _ in runs[0].logged] == [1]
    assert reports[1:] == [
        ("warn", "Metrics for Weights & Biases are no longer written: a negative loss")
    ]


def test_a_missing_package_is_reported(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    reports: list[tuple[str, str]] = []
    WandbRuns(job, tmp_path, lambda *report: reports.append(report)).finish()
    [(level, message)] = reports
    assert level == "warn"
    assert "wandb package is not installed" in message


def test_a_job_without_integrations_starts_no_run(
    runs: list[FakeRun], job: Job, tmp_path: Path
) -> None:
    reports: list[tuple[str, str]] = []
    bare = replace(job, integrations=())
    WandbRuns(bare, tmp_path, lambda *report: reports.append(report)).finish()
    assert runs == reports == []
