"""One job, from its files to its model: prepare, plan, load, train, publish.

Each step is a function from the values of the steps before it, in a module of its own, and reports
through the run's log. A job that is run again after an interruption resumes from its newest
checkpoint, and repeats no event and no row: each has a key.
"""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from emojitune.jobs import states
from emojitune.jobs.failure import fail_on_error
from emojitune.jobs.job_log import JobLog
from emojitune.jobs.plan import Plan, make_plan
from emojitune.jobs.prepare import JobFiles, Prepared, prepare, read_files
from emojitune.jobs.publish import finish, publish
from emojitune.jobs.run import Control, Run
from emojitune.models import torch_environment
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores


def validate(job: Job, stores: Stores) -> JobFiles | None:
    """Check a job's files and queue it, or fail it with the first issue found.

    Returns:
        The files' examples, for `run` in the same process; None if the job failed.
    """
    with fail_on_error(job, stores):
        files = read_files(job, stores)
        states.queue_validated(stores, job.id)
        return files
    return None


def start(job: Job, stores: Stores) -> Job:
    """Move a queued job to running, and report it."""
    with fail_on_error(job, stores), stores.transaction():
        states.JOB.move(stores.jobs, job.id, "running")
        JobLog(job.id, stores).info("Fine-tuning job started", "started")
    return stores.jobs.get(job.id)


def run(
    job: Job, stores: Stores, settings: Settings, control: Control, files: JobFiles | None = None
) -> None:
    """Train a running job to its end.

    Args:
        files: The job's files as `validate` returned them; read again without.

    Raises:
        Interrupted: `control` stopped the job; it can be resumed from its last checkpoint.
        InvalidStateError: A write was refused, since the job was stopped from outside.
    """
    with fail_on_error(job, stores):
        _execute(Run(job, stores, settings, control), files or read_files(job, stores))


def _execute(run: Run, files: JobFiles) -> None:
    prepared = prepare(run, files)
    plan = _plan(run.job, prepared)
    torch_environment.import_libraries()
    # Only now: a worker that validates files, and the server, load no torch for a job.
    from emojitune.jobs.load import load
    from emojitune.jobs.train import train

    loaded = load(run, prepared, plan)
    with closing(train(run, prepared, loaded)) as checkpoints:
        for checkpoint in checkpoints:
            publish(run, prepared, checkpoint)
    finish(run, prepared, loaded.trained_tokens)


def _plan(job: Job, prepared: Prepared) -> Plan:
    return make_plan(
        _requested(job),
        examples=len(prepared.files.training.examples),
        meanings=len(prepared.meanings),
        labels=len(prepared.vocabulary),
        seed=job.seed,
        learning_rate=prepared.base.model.learning_rate,
    )


def _requested(job: Job) -> Mapping[str, Any]:
    """The hyperparameters as the request named them, in the job itself or in its method."""
    supervised = (job.method or {}).get("supervised") or {}
    return {**job.hyperparameters, **(supervised.get("hyperparameters") or {})}
