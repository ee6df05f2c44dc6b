"""One job, from its files to its model: validate, plan, load, train, register.

The conductor: it knows all stages and turns their values into rows and events. Each event and row
has a key of its own, so a job that is run again after an interruption tells nothing twice.
"""

import base64
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emojitune.dataset.augmentation import meaning_examples
from emojitune.dataset.checks.duplicates import find_leakage
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.statistics import closed_vocabulary, shared_system_prompt
from emojitune.dataset.validation import DatasetReport
from emojitune.errors import NotFoundError
from emojitune.jobs import job_log, states
from emojitune.jobs.data_files import read_file
from emojitune.jobs.estimate import FinishEstimate
from emojitune.jobs.failure import failing
from emojitune.jobs.heartbeat import Control, Interrupted
from emojitune.jobs.integrations import WandbRuns
from emojitune.jobs.plan import Plan, make_plan
from emojitune.jobs.publish import copy_adapter, model_name, remove_adapters, unregister
from emojitune.models import torch_environment
from emojitune.models.catalog import BaseModel, is_fine_tuned, resolve_base, stored_base
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.leases import LeaseLostError
from emojitune.store.models import FineTunedModel
from emojitune.store.stores import Stores
from emojitune.training.config import TrainingConfig
from emojitune.training.events import (
    CheckpointSaved,
    ForwardChosen,
    StepCompleted,
    TrainingEvent,
    ValidationCompleted,
)

if TYPE_CHECKING:
    from emojitune.jobs.knn_index import KNNExamples
    from emojitune.models.loader import Trainable
    from emojitune.models.renderer import RenderedExample

_KEPT_CHECKPOINTS = 3  # as on the hosted API


@dataclass(frozen=True, slots=True)
class _Base:
    """What a job starts from: a base model, and the adapter it goes on from if there is one."""

    model: BaseModel
    hosted_name: str
    adapter: Path | None


def validate(job: Job, stores: Stores) -> None:
    """Check a job's files and queue it, or fail it with the first thing to mend."""
    with failing(job, stores):
        read_file(job.training_file, stores, "training_file")
        if job.validation_file:
            read_file(job.validation_file, stores, "validation_file")
        states.queue_validated(stores, job.id)


def start(job: Job, stores: Stores) -> Job:
    """Give a queued job its turn."""
    with failing(job, stores), stores.transaction():
        states.JOB.move(stores.jobs, job.id, "running")
        _tell(stores, job, "Fine-tuning job started", key="started")
    return stores.jobs.get(job.id)


def run(job: Job, stores: Stores, settings: Settings, control: Control) -> None:
    """Train a running job to its end.

    Raises:
        Interrupted: `control` said that the job is to stop; it can go on from where it is.
        InvalidStateError: A write was refused, since the job was stopped from outside.
    """
    with failing(job, stores):
        _Run(job, stores, settings, control).execute()


class _Run:
    def __init__(self, job: Job, stores: Stores, settings: Settings, control: Control) -> None:
        self.job = job
        self.stores = stores
        self.settings = settings
        self.control = control
        self.folder = settings.runs / job.id
        self.saved_at = time.monotonic()
        self.refused = False  # whether a step was: the job was paused, say
        self.examples: KNNExamples | None = None
        self.system_prompt = ""

    def execute(self) -> None:
        training = read_file(self.job.training_file, self.stores, "training_file")
        validation = None
        if self.job.validation_file:
            validation = read_file(self.job.validation_file, self.stores, "validation_file")
            self._warn_of_leakage(training.examples, validation.examples)
        self.system_prompt = shared_system_prompt(training.examples)
        base = self._base()
        model_folder = self._fetch(base.model)
        trained_tokens = self._train(base, model_folder, training, validation)
        self._finish(self._model_name(base), trained_tokens)

    def _base(self) -> _Base:
        if not is_fine_tuned(self.job.model):
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
            stored_base(tuned.base), tuned.hosted_name, self.settings.adapters / tuned.adapter
        )

    def _fetch(self, base: BaseModel) -> Path:
        from emojitune.models.download import fetch

        if self.job.model != base.name:
            self._tell(f"{self.job.model} is served here by {base.title} ({base.licence})", "base")
        told: set[str] = set()

        def progress(what: str, done: int, total: int | None) -> None:
            self._leave_if_asked()
            if what not in told:
                told.add(what)
                size = f" ({total / 1e6:.0f} MB, once)" if total else ""
                self._tell(what + size, f"fetch-{what}")

        return fetch(base, self.settings, progress)

    def _train(
        self,
        base: _Base,
        model_folder: Path,
        training: DatasetReport,
        validation: DatasetReport | None,
    ) -> int:
        """Train, telling all the way; returns the tokens trained on, those of all epochs."""
        torch_environment.import_libraries()
        from emojitune.jobs.knn_index import choose
        from emojitune.jobs.memory_check import MemoryCheck
        from emojitune.models import adapter, loader
        from emojitune.training.batches import supervised_tokens, truncate
        from emojitune.training.checkpoint import CheckpointFolder
        from emojitune.training.loop import train

        precision = loader.choose_precision(self.settings)
        memory = MemoryCheck(model_folder, precision)
        memory.before_loading()
        model = loader.load_for_training(model_folder, precision)
        self._leave_if_asked()  # what came before took seconds
        examples = training.examples
        meanings = meaning_examples(examples) if self.settings.label_meanings else ()
        vocabulary = closed_vocabulary(examples)
        plan = make_plan(
            self._requested(),
            examples=len(examples),
            meanings=len(meanings),
            labels=len(vocabulary),
            seed=self.job.seed,
            learning_rate=base.model.learning_rate,
            max_tokens=model.context_length,
        )
        config = memory.with_row_tokens(plan.config)
        self._tell_plan(plan, precision.reason)
        info = adapter.AdapterInfo(
            base=base.model.name,
            rank=config.rank,
            alpha=config.alpha,
            vocabulary=vocabulary,
        )
        checkpoints = CheckpointFolder(
            self.folder / "checkpoints", info, permit=self.control.saving
        )
        rendered = self._rendered(training, model, "training")
        said = [model.renderer.render_example(example.conversation) for example in meanings]
        rendered += [truncate(example, config.max_tokens) for example in said]
        if told := memory.before_training(config, rendered, training.lines):
            self._tell(told, "memory")
        events = train(
            model,
            precision.device,
            rendered,
            config,
            checkpoints,
            validation=self._rendered(validation, model, "validation") if validation else (),
            initial=adapter.read(base.adapter)[1] if base.adapter else None,
            should_save=self._save_now,
        )
        self.saved_at = time.monotonic()
        if self.settings.neighbours:
            seen = zip((*examples, *meanings), rendered, strict=True)
            taught = [example for example, tokens in seen if supervised_tokens(tokens)]
            self.examples = choose(model, taught, vocabulary)
        runs = WandbRuns(self.job, self.folder, self._tell_of_integrations)
        try:
            self._follow(events, base, config, runs)
        finally:
            runs.finish()
        return config.epochs * sum(len(example.ids) for example in rendered)

    def _rendered(
        self, file: DatasetReport, model: "Trainable", which: str
    ) -> "list[RenderedExample]":
        from emojitune.jobs.rendering import render_file

        examples, told = render_file(file, model.renderer, model.context_length)
        if told:
            told = f"{which.capitalize()} file: {told}"
            self.stores.jobs.add_event(self.job.id, told, level="warn", key=f"cut-{which}")
        return examples

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

    def _follow(
        self,
        events: Iterator[TrainingEvent],
        base: _Base,
        config: TrainingConfig,
        runs: WandbRuns,
    ) -> None:
        """Store what training yields. The last step of an epoch is told with its validation."""
        then = self.examples.steps(config.batch_size) if self.examples else 0.0
        estimate = FinishEstimate(then)
        metrics: dict[str, Any] = {}
        finish: int | None = None
        last: CheckpointSaved | None = None
        for event in events:
            self.control.check()
            match event:
                case ForwardChosen():
                    self._tell(f"Training through {event.name}", "forward")
                case StepCompleted():
                    metrics = job_log.of_step(event)
                    finish = estimate.after(event.step, event.total_steps)
                    if not event.ends_epoch:
                        self._tell_step_if_wanted(metrics, finish, runs)
                case ValidationCompleted():
                    metrics |= job_log.of_validation(event)
                case CheckpointSaved():
                    if event.ends_epoch:
                        self._tell_step(metrics, finish, runs)
                        if event.epoch == config.epochs:
                            last = event
                            continue
                        self._register(event, base, metrics, final=False)
                    self.saved_at = time.monotonic()
                    self._leave_if_asked()
        assert last is not None, "training ends with a checkpoint"
        self._register(last, base, metrics, final=True)  # with all threads: training is over
        self._leave_if_asked()

    def _stopping(self) -> bool:
        return self.refused or self.control.stopping()

    def _save_now(self) -> bool:
        """Whether a checkpoint is due: by the clock, or because the job is to stop behind it."""
        age = time.monotonic() - self.saved_at
        return self._stopping() or age >= self.settings.checkpoint_seconds

    def _leave_if_asked(self) -> None:
        self.control.check()
        if self._stopping():
            raise Interrupted

    def _tell_step_if_wanted(
        self, metrics: dict[str, Any], finish: int | None, runs: WandbRuns
    ) -> None:
        """A job that was paused just now gets no step: its checkpoint has it, and it is told when
        the job goes on."""
        try:
            self._tell_step(metrics, finish, runs)
        except LeaseLostError:
            self.refused = True

    def _tell_step(self, metrics: dict[str, Any], finish: int | None, runs: WandbRuns) -> None:
        with self.stores.transaction():
            self.stores.jobs.add_event(
                self.job.id,
                job_log.sentence(metrics),
                type="metrics",
                data=metrics,
                key=f"step-{metrics['step']}",
            )
            if finish is not None:
                self.stores.jobs.update(self.job.id, estimated_finish=finish)
        runs.log(metrics)

    def _register(
        self, saved: CheckpointSaved, base: _Base, metrics: dict[str, Any], *, final: bool
    ) -> None:
        """Make an epoch's adapter a model of its own; the last one is the job's."""
        name = self._model_name(base, None if final else saved.step)
        folder = f"{self.job.id}-step-{saved.step}"
        copy_adapter(
            saved.adapter,
            self.settings.adapters / folder,
            self._add_examples if final else None,
            permit=self.stores.transaction,
        )
        model = FineTunedModel(
            name=name,
            created_at=int(time.time()),
            job_id=self.job.id,
            base=base.model.name,
            hosted_name=base.hosted_name,
            adapter=folder,
            step=None if final else saved.step,
            system_prompt=self.system_prompt,
        )
        told = {key: value for key, value in metrics.items() if key != "total_steps"}
        with self.stores.transaction():
            self.stores.models.register(model)
            self.stores.jobs.add_checkpoint(self.job.id, model=name, step=saved.step, metrics=told)
            if not final:  # which is told as the new model
                self._tell(
                    f"Checkpoint created at step {saved.step} with Snapshot ID: {name}",
                    f"checkpoint-{saved.step}",
                )
            old = self.stores.jobs.drop_checkpoints(self.job.id, keep=_KEPT_CHECKPOINTS)
            superseded = unregister([one.model for one in old], self.stores.models)
        remove_adapters(superseded, self.settings)

    def _add_examples(self, adapter: Path) -> None:
        """Put the training examples beside a finished adapter, as its model sees them."""
        if self.examples is not None:
            self._tell(
                f"{len(self.examples.replies)} training examples stay with the model: replies are "
                "weighed by those that a prompt is most like",
                "examples",
            )
            self.examples.seen(adapter, self.control.check).save(adapter)

    def _finish(self, name: str, trained_tokens: int) -> None:
        self.control.check()
        result = base64.b64encode(self._metrics_csv().encode())
        with self.stores.files.receive([result]) as incoming, self.stores.transaction():
            self._tell(f"New fine-tuned model created: {name}", "model")
            file = self.stores.files.keep(
                incoming, filename="step_metrics.csv", purpose="fine-tune-results"
            )
            states.JOB.move(
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
        return job_log.csv(e.data for e in self._events() if e.type == "metrics")

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
        shared = len(find_leakage(examples, validation))
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


def _tell(stores: Stores, job: Job, message: str, *, key: str) -> None:
    stores.jobs.add_event(job.id, message, key=key)
