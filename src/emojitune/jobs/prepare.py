"""The first step of a job: its files are read, and its base model is resolved and fetched.

Without torch: a worker that only validates files never loads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emojitune.dataset.augmentation import meaning_examples
from emojitune.dataset.checks.duplicates import find_leakage
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.statistics import closed_vocabulary, shared_system_prompt
from emojitune.dataset.validation import DatasetReport, load_report
from emojitune.errors import NotFoundError
from emojitune.jobs.run import Run
from emojitune.models.catalog import BaseModel, is_fine_tuned, resolve_base, stored_base
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores

_MINIMUM_EXAMPLES = {"training_file": 10, "validation_file": 1}


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The usable examples of a job's files, each with its line."""

    training: DatasetReport
    validation: DatasetReport | None


@dataclass(frozen=True, slots=True)
class Base:
    """The model that a job starts from: a base model, and an adapter to continue from if any.

    `hosted_name` is the name that the request used.
    """

    model: BaseModel
    hosted_name: str
    adapter: Path | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a job is planned and trained from.

    Attributes:
        files: Its examples.
        meanings: Examples that explain the labels, trained in addition.
        vocabulary: The closed set of replies; empty where it is open.
        system_prompt: The one of all training examples, if they share one.
        base: The model to start from.
        base_folder: That model on this disk.
    """

    files: JobFiles
    meanings: tuple[TrainingExample, ...]
    vocabulary: tuple[str, ...]
    system_prompt: str
    base: Base
    base_folder: Path


def read_files(job: Job, stores: Stores) -> JobFiles:
    """Parse a job's training file, and its validation file if there is one.

    Raises:
        NotFoundError: A file or its bytes were deleted.
        DatasetError: Something in a file has to be corrected first.
    """
    training = _read_file(job.training_file, stores, "training_file")
    if not job.validation_file:
        return JobFiles(training, None)
    return JobFiles(training, _read_file(job.validation_file, stores, "validation_file"))


def prepare(run: Run, files: JobFiles) -> Prepared:
    """Find and fetch the model that a job starts from.

    Raises:
        NotFoundError: The job's model was deleted.
        ModelError: The base model cannot be fetched.
    """
    examples = files.training.examples
    if files.validation is not None:
        _warn_of_leakage(run, examples, files.validation.examples)
    base = _base(run)
    return Prepared(
        files=files,
        meanings=tuple(meaning_examples(examples)) if run.settings.label_meanings else (),
        vocabulary=closed_vocabulary(examples),
        system_prompt=shared_system_prompt(examples),
        base=base,
        base_folder=_fetch(run, base.model),
    )


def _read_file(file_id: str, stores: Stores, param: str) -> DatasetReport:
    name = param.replace("_", " ")
    try:
        path = stores.files.path(file_id)
    except NotFoundError as error:
        raise NotFoundError(
            f"The job's {name} {file_id} was deleted before it was used. Upload it again and "
            "create a new job.",
            code="invalid_" + param,
            param=param,
        ) from error
    if not path.is_file():
        raise NotFoundError(
            f"The bytes of the job's {name} {file_id} are no longer on this server's disk "
            f"({path}). Upload it again and create a new job.",
            code="invalid_" + param,
            param=param,
        )
    return load_report(path, minimum_examples=_MINIMUM_EXAMPLES[param], param=param)


def _warn_of_leakage(
    run: Run, training: Sequence[TrainingExample], validation: Sequence[TrainingExample]
) -> None:
    shared = len(find_leakage(training, validation))
    if shared:
        run.log.warn(
            f"{shared} validation examples are (nearly) training examples: the validation loss "
            "will look better than it is",
            "leakage",
        )


def _base(run: Run) -> Base:
    requested = run.job.model
    if not is_fine_tuned(requested):
        return Base(resolve_base(requested, run.settings), requested, None)
    try:
        tuned = run.stores.models.get(requested)
    except NotFoundError as error:
        raise NotFoundError(
            f"The job's base model {requested} was deleted before it was used. Create a new job "
            "with a model that is still here.",
            code="model_not_found",
            param="model",
        ) from error
    return Base(stored_base(tuned.base), tuned.hosted_name, run.settings.adapters / tuned.adapter)


def _fetch(run: Run, base: BaseModel) -> Path:
    from emojitune.models.download import fetch_checked

    if run.job.model != base.name:
        run.log.info(f"{run.job.model} is served here by {base.title} ({base.licence})", "base")
    reported: set[str] = set()

    def progress(action: str, done: int, total: int | None) -> None:
        run.leave_if_stopping()
        if action not in reported:
            reported.add(action)
            size = f" ({total / 1e6:.0f} MB, once)" if total else ""
            run.log.info(action + size, f"fetch-{action}")

    return fetch_checked(base, run.settings, progress)
