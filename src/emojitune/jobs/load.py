"""The third step of a job: the base model is loaded, and everything that it is trained on.

Imports torch: see pipeline.py, which imports this module only when a job is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from emojitune.dataset.example import TrainingExample
from emojitune.dataset.rules import abbreviate_lines
from emojitune.dataset.validation import DatasetReport
from emojitune.jobs import knn_datastore
from emojitune.jobs.knn_datastore import KNNExamples
from emojitune.jobs.memory_check import MemoryCheck
from emojitune.jobs.plan import Plan
from emojitune.jobs.prepare import Prepared
from emojitune.jobs.run import Run
from emojitune.models import adapter, loader
from emojitune.models.loader import TrainableModel
from emojitune.models.renderer import RenderedExample, Renderer
from emojitune.training.batches import supervised_tokens, truncate
from emojitune.training.config import TrainingConfig


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with everything that it is trained on, in the form that training takes.

    Attributes:
        config: The plan's, with the numbers that depend on the model and the device.
        training: Examples as token ids, none longer than the model's context, the file's first.
        validation: The validation file's examples as token ids; empty without one.
        initial: Tensors of the adapter to continue from, by name.
        knn_examples: Examples that the finished model compares prompts with.
    """

    model: TrainableModel
    device: torch.device
    config: TrainingConfig
    training: Sequence[RenderedExample]
    validation: Sequence[RenderedExample]
    initial: Mapping[str, Tensor] | None
    knn_examples: KNNExamples | None

    @property
    def trained_tokens(self) -> int:
        """Tokens trained on, those of all epochs. Steps of an earlier process are among them."""
        return self.config.epochs * sum(len(example.ids) for example in self.training)


def load(run: Run, prepared: Prepared, plan: Plan) -> Loaded:
    """Load a job's base model, render its examples, and report the resolved plan.

    Raises:
        ModelError: The base model, or the adapter to continue from, is damaged.
        TrainingError: The job does not fit into memory.
    """
    precision = loader.choose_precision(run.settings)
    memory = MemoryCheck(prepared.base_folder, precision)
    memory.before_loading()
    model = loader.load_for_training(prepared.base_folder, precision)
    run.leave_if_stopping()  # loading took seconds
    _report_plan(run, plan, precision.reason)
    config = memory.with_row_tokens(replace(plan.config, max_tokens=model.context_length))

    files = prepared.files
    training = _render_file(run, files.training, model, "training")
    meanings = [model.renderer.render_example(one.conversation) for one in prepared.meanings]
    training += [truncate(example, model.context_length) for example in meanings]
    if message := memory.before_training(config, training, files.training.lines):
        run.log.info(message, "memory")
    validation = (
        _render_file(run, files.validation, model, "validation") if files.validation else []
    )
    initial = adapter.read(prepared.base.adapter)[1] if prepared.base.adapter else None
    examples = (*files.training.examples, *prepared.meanings)
    return Loaded(
        model=model,
        device=precision.device,
        config=config,
        training=training,
        validation=validation,
        initial=initial,
        knn_examples=_knn_examples(run, model, examples, training, prepared.vocabulary),
    )


def _report_plan(run: Run, plan: Plan, precision: str) -> None:
    method = run.job.method
    if method is not None:
        method = {**method, "supervised": {"hyperparameters": plan.hyperparameters}}
    run.stores.jobs.update(run.job.id, hyperparameters=plan.hyperparameters, method=method)
    for number, reason in enumerate(plan.reasons):
        run.log.info(f"Plan: {reason}", f"plan-{number}")
    run.log.info(f"Computing in {precision}", "precision")


def _render_file(
    run: Run, file: DatasetReport, model: TrainableModel, kind: str
) -> list[RenderedExample]:
    """A file's examples as token ids; reports which of them were cut."""
    examples, cut = render_file(file, model.renderer, model.context_length)
    if cut:
        run.log.warn(f"{kind.capitalize()} file: {cut}", f"cut-{kind}")
    return examples


def render_file(
    file: DatasetReport, renderer: Renderer, max_tokens: int
) -> tuple[list[RenderedExample], str | None]:
    """The usable examples, none longer than `max_tokens`, and which were cut, in words."""
    complete = [renderer.render_example(example.conversation) for example in file.examples]
    examples = [truncate(example, max_tokens) for example in complete]
    cut: list[int] = []
    silent: list[int] = []
    for line, before, after in zip(file.lines, complete, examples, strict=True):
        if len(before.ids) > max_tokens:
            cut.append(line)
            if supervised_tokens(before) and not supervised_tokens(after):
                silent.append(line)
    return examples, _cut_message(cut, silent, len(examples), max_tokens) if cut else None


def _cut_message(cut: Sequence[int], silent: Sequence[int], count: int, max_tokens: int) -> str:
    message = (
        f"{len(cut)} of {count} examples cut at {max_tokens} tokens, where the base model reads no "
        f"further ({abbreviate_lines(cut)})"
    )
    if silent:
        message += f"; no reply is left to learn in {abbreviate_lines(silent)}"
    return message


def _knn_examples(
    run: Run,
    model: TrainableModel,
    examples: Sequence[TrainingExample],
    rendered: Sequence[RenderedExample],
    vocabulary: Sequence[str],
) -> KNNExamples | None:
    if not run.settings.neighbours:
        return None
    pairs = zip(examples, rendered, strict=True)
    learned = [example for example, tokens in pairs if supervised_tokens(tokens)]
    return knn_datastore.choose_examples(model, learned, vocabulary)
