"""One job, from its files to its model: validate, plan, load, train, register.

The conductor: it knows all stages and turns their values into rows and events. Each event and row
has a key of its own, so a job that is run again after an interruption tells nothing twice.
"""

import base64
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from emojitune.dataset.example import TrainingExample
from emojitune.dataset.meanings import explained
from emojitune.dataset.split import leakage
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import load_examples
from emojitune.errors import EmojituneError, NotFoundError
from emojitune.jobs import states, step_metrics
from emojitune.jobs.estimate import FinishEstimate
from emojitune.jobs.integrations import MetricsRuns
from emojitune.jobs.plan import Plan, make_plan
from emojitune.jobs.registry import copy_adapter, forget_model, model_name
from emojitune.models import torch_environment
from emojitune.models.catalog import BaseModel, base_called, resolve_base
from emojitune.settings import Settings
from emojitune.store.files import FileStore
from emojitune.store.jobs import Job, JobError, JobStore
from emojitune.store.models import FineTunedModel, ModelStore
from emojitune.training.config import TrainingConfig
from emojitune.training.events import (
    CheckpointSaved,
    ForwardChosen,
    StepCompleted,
    TrainingEvent,
    ValidationCompleted,
)

_KEPT_CHECKPOINTS = 3  # as on the hosted API


class Interrupted(Exception):
    """The job is to stop here: cancelled, paused, or its process is asked to end."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What a job reads and writes."""

    files: FileStore
    jobs: JobStore
    models: ModelStore


@dataclass(frozen=True, slots=True)
class _Base:
    """What a job starts from: a base model, and the adapter it goes on from if there is one."""

    model: BaseModel
    hosted_name: str
    adapter: Path | None


def validate(job: Job, stores: Stores) -> None:
    """Check a job's files and queue it, or fail it with the first thing to mend."""
    with _failing(job, stores):
        _examples_of(job.training_file, stores, "training_file")
        if job.validation_file:
            _examples_of(job.validation_file, stores, "validation_file")
    if stores.jobs.get(job.id).status == "validating_files":
        _tell(stores, job, "Files validated, moving job to queued state", key="validated")
        states.move(stores.jobs, job.id, "queued")


def run(job: Job, stores: Stores, settings: Settings, check: Callable[[], None]) -> None:
    """Train a queued job to its end.

    Args:
        check: Called at least once a step; raises Interrupted when the job is to stop.
    """
    with _failing(job, stores):
        if job.status == "queued":
            job = states.move(stores.jobs, job.id, "running")
        _tell(stores, job, "Fine-tuning job started", key="started")
        _Run(job, stores, settings, check).execute()


class _Run:
    def __init__(
        self, job: Job, stores: Stores, settings: Settings, check: Callable[[], None]
    ) -> None:
        self.job = job
        self.stores = stores
        self.settings = settings
        self.check = check
        self.folder = settings.runs / job.id

    def execute(self) -> None:
        examples = _examples_of(self.job.training_file, self.stores, "training_file")
        validation: Sequence[TrainingExample] = ()
        if self.job.validation_file:
            validation = _examples_of(self.job.validation_file, self.stores, "validation_file")
            self._warn_of_leakage(examples, validation)
        base = self._base()
        model_folder = self._fetch(base.model)
        trained_tokens = self._train(base, model_folder, examples, validation)
        self._finish(self._model_name(base), trained_tokens)

    def _base(self) -> _Base:
        if not self.job.model.startswith("ft:"):
            base = resolve_base(self.job.model, self.settings)
            return _Base(base, self.job.model, None)
        try:
            tuned = self.stores.models.get(self.job.model)
        except NotFoundError as error:
            raise NotFoundError(
                f"The job's base model {self.job.model} was deleted before it was used. Create a "
                "new job with a model that is still here.",
                code="model_not_found",
                param="model",
            ) from error
        return _Base(
            base_called(tuned.base), tuned.hosted_name, self.settings.adapters / tuned.adapter
        )

    def _fetch(self, base: BaseModel) -> Path:
        from emojitune.models.download import fetch

        if self.job.model != base.name:
            self._tell(f"{self.job.model} is served here by {base.title} ({base.licence})", "base")
        told: set[str] = set()

        def progress(what: str, done: int, total: int | None) -> None:
            self.check()
            if what not in told:
                told.add(what)
                size = f" ({total / 1e6:.0f} MB, once)" if total else ""
                self._tell(what + size, f"fetch-{what}")

        return fetch(base, self.settings, progress)

    def _train(
        self,
        base: _Base,
        model_folder: Path,
        examples: Sequence[TrainingExample],
        validation: Sequence[TrainingExample],
    ) -> int:
        """Train, telling all the way; returns the tokens trained on, those of all epochs."""
        torch_environment.import_libraries()
        from emojitune.models import adapter, loader
        from emojitune.training.batches import truncate
        from emojitune.training.checkpoint import CheckpointFolder
        from emojitune.training.loop import train

        precision = loader.choose_precision(self.settings)
        model = loader.load_for_training(model_folder, precision)
        self.check()  # what came before took seconds: the job may have been cancelled meanwhile
        meanings = explained(examples)
        plan = make_plan(
            self._requested(),
            examples=len(examples),
            meanings=len(meanings),
            seed=self.job.seed,
            learning_rate=base.model.learning_rate,
            max_tokens=model.context_length,
        )
        self._tell_plan(plan, precision.reason)
        info = adapter.AdapterInfo(
            base=base.model.name,
            rank=plan.config.rank,
            alpha=plan.config.alpha,
            vocabulary=closed_vocabulary(examples),
        )
        checkpoints = CheckpointFolder(self.folder / "checkpoints", info)
        self._recall(checkpoints.newest(), base, plan.config)
        rendered = [model.renderer.render_example(e.messages) for e in (*examples, *meanings)]
        events = train(
            model,
            precision.device,
            rendered,
            plan.config,
            checkpoints,
            validation=[model.renderer.render_example(e.messages) for e in validation],
            initial=adapter.read(base.adapter)[1] if base.adapter else None,
        )
        runs = MetricsRuns(self.job, self.folder, self._tell_of_integrations)
        try:
            self._follow(events, base, plan.config, runs)
        finally:
            runs.finish()
        cut = [truncate(example, plan.config.max_tokens) for example in rendered]
        return plan.config.epochs * sum(len(example.ids) for example in cut)

    def _requested(self) -> dict[str, Any]:
        method = self.job.method or {}
        detail = (method.get("supervised") or {}).get("hyperparameters") or {}
        return {**self.job.hyperparameters, **detail}

    def _tell_plan(self, plan: Plan, precision: str) -> None:
        method = self.job.method
        if method is not None:
            method = {**method, "supervised": {"hyperparameters": plan.hyperparameters}}
        self.stores.jobs.update(self.job.id, hyperparameters=plan.hyperparameters, method=method)
        for number, reason in enumerate(plan.reasons):
            self._tell(f"Plan: {reason}", f"plan-{number}")
        self._tell(f"Computing in {precision}", "precision")

    def _recall(self, saved: CheckpointSaved | None, base: _Base, config: TrainingConfig) -> None:
        """Register the checkpoint that an interruption may have left without a name."""
        if saved is None:
            return
        told = self.stores.jobs.event(self.job.id, f"step-{saved.step}")
        metrics = told.data if told else {"step": saved.step}
        self._register(saved, base, metrics, final=saved.epoch == config.epochs)

    def _follow(
        self,
        events: Iterator[TrainingEvent],
        base: _Base,
        config: TrainingConfig,
        runs: MetricsRuns,
    ) -> None:
        """Store what training yields. Metrics of a step are told when the next event is there,
        so that validation and the end of an epoch are part of them."""
        estimate = FinishEstimate()
        metrics: dict[str, Any] = {}
        for event in events:
            # A checkpoint that was saved is also registered: the next run begins behind it.
            if not isinstance(event, CheckpointSaved):
                self.check()
            match event:
                case ForwardChosen():
                    self._tell(f"Training through {event.name}", "forward")
                case StepCompleted():
                    self._tell_step(metrics, runs)
                    metrics = step_metrics.of_step(event)
                    finish = estimate.after(event.step, event.total_steps)
                    if finish is not None:
                        self.stores.jobs.update(self.job.id, estimated_finish=finish)
                case ValidationCompleted():
                    metrics |= step_metrics.of_validation(event)
                case CheckpointSaved():
                    self._tell_step(metrics, runs)
                    self._register(event, base, metrics, final=event.epoch == config.epochs)

    def _tell_step(self, metrics: dict[str, Any], runs: MetricsRuns) -> None:
        if not metrics:
            return
        runs.log(metrics)
        self.stores.jobs.add_event(
            self.job.id,
            step_metrics.sentence(metrics),
            type="metrics",
            data=metrics,
            key=f"step-{metrics['step']}",
        )

    def _register(
        self, saved: CheckpointSaved, base: _Base, metrics: dict[str, Any], *, final: bool
    ) -> None:
        """Make an epoch's adapter a model of its own; the last one is the job's."""
        name = self._model_name(base, None if final else saved.step)
        folder = f"{self.job.id}-step-{saved.step}"
        copy_adapter(saved.adapter, self.settings.adapters / folder)
        self.stores.models.register(
            FineTunedModel(
                name=name,
                created_at=int(time.time()),
                job_id=self.job.id,
                base=base.model.name,
                hosted_name=base.hosted_name,
                adapter=folder,
                step=None if final else saved.step,
            )
        )
        told = {key: value for key, value in metrics.items() if key != "total_steps"}
        self.stores.jobs.add_checkpoint(self.job.id, model=name, step=saved.step, metrics=told)
        for old in self.stores.jobs.drop_checkpoints(self.job.id, keep=_KEPT_CHECKPOINTS):
            with contextlib.suppress(NotFoundError):  # its owner may have deleted it
                forget_model(old.model, self.stores.models, self.settings)
        if not final:  # which is told as the new model
            self._tell(
                f"Checkpoint created at step {saved.step} with Snapshot ID: {name}",
                f"checkpoint-{saved.step}",
            )

    def _finish(self, name: str, trained_tokens: int) -> None:
        self.check()
        self._tell(f"New fine-tuned model created: {name}", "model")
        file = self.stores.files.add(
            [base64.b64encode(self._metrics_csv().encode())],
            filename="step_metrics.csv",
            purpose="fine-tune-results",
        )
        states.move(
            self.stores.jobs,
            self.job.id,
            "succeeded",
            finished_at=int(time.time()),
            fine_tuned_model=name,
            trained_tokens=trained_tokens,
            result_files=[file.id],
            estimated_finish=None,
        )
        self._tell("The job has successfully completed", "succeeded")
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def _metrics_csv(self) -> str:
        """The result file, from the events: they hold the steps before an interruption too."""
        return step_metrics.csv(e.data for e in self._events() if e.type == "metrics")

    def _events(self) -> Iterator[Any]:
        after = None
        while True:
            page = self.stores.jobs.events(self.job.id, after=after, limit=1000)
            yield from page.items
            if not page.has_more:
                return
            after = page.items[-1].id

    def _tell_of_integrations(self, level: Literal["info", "warn"], message: str) -> None:
        key = f"integrations-{level}"
        self.stores.jobs.add_event(self.job.id, message, level=level, key=key)

    def _warn_of_leakage(
        self, examples: Sequence[TrainingExample], validation: Sequence[TrainingExample]
    ) -> None:
        shared = len(leakage(examples, validation))
        if shared:
            self.stores.jobs.add_event(
                self.job.id,
                f"{shared} validation examples are (nearly) training examples: the validation "
                "loss will look better than it is",
                level="warn",
                key="leakage",
            )

    def _model_name(self, base: _Base, step: int | None = None) -> str:
        return model_name(self.job, base.hosted_name, self.settings.organization, step)

    def _tell(self, message: str, key: str) -> None:
        _tell(self.stores, self.job, message, key=key)


class _failing:
    """Turns an error that a user can act on into a failed job."""

    def __init__(self, job: Job, stores: Stores) -> None:
        self._job = job
        self._stores = stores

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, EmojituneError):
            return False
        fail(self._job, self._stores, error)
        return True


def fail(job: Job, stores: Stores, error: EmojituneError) -> None:
    """Fail a job with an error's code, message and param, and tell it as an event.

    As on the hosted API, a job whose files were refused never began, and so has no finish.
    """
    code = error.code or "server_error"
    began = stores.jobs.get(job.id).status != "validating_files"
    states.move(
        stores.jobs,
        job.id,
        "failed",
        error=JobError(code, error.message, error.param),
        finished_at=int(time.time()) if began else None,
        estimated_finish=None,
    )
    stores.jobs.add_event(job.id, error.message, level="error", key="failed")


def _examples_of(file_id: str, stores: Stores, param: str) -> tuple[TrainingExample, ...]:
    try:
        path = stores.files.path(file_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"The job's {param.replace('_', ' ')} {file_id} was deleted before it was used. "
            "Upload it again and create a new job.",
            code="invalid_" + param,
            param=param,
        ) from error
    minimum = 10 if param == "training_file" else 1
    return load_examples(path, minimum_examples=minimum, param=param)


def _tell(stores: Stores, job: Job, message: str, *, key: str) -> None:
    stores.jobs.add_event(job.id, message, key=key)
