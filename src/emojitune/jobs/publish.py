"""The last step of a job: checkpoints become fine-tuned models, and the job succeeds.

Also the names of fine-tuned models, and their adapters on the disk.
"""

import base64
import hashlib
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emojitune.disk import atomic_folder
from emojitune.jobs import states
from emojitune.jobs.prepare import Prepared
from emojitune.jobs.run import Run
from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.models import FineTunedModel, ModelStore

_CHECKPOINTS_PER_JOB = 3  # as on the hosted API


@dataclass(frozen=True, slots=True)
class EpochCheckpoint:
    """A checkpoint to publish: the adapter at the end of an epoch.

    Attributes:
        adapter: Its folder, in PEFT's format.
        metrics: Metrics of the epoch's last step.
        final: Whether it is the job's result.
        complete: Adds to a copy of the adapter's folder what else the model needs.
    """

    step: int
    adapter: Path
    metrics: Mapping[str, Any]
    final: bool = False
    complete: Callable[[Path], None] | None = None


def publish(run: Run, prepared: Prepared, checkpoint: EpochCheckpoint) -> None:
    """Register an epoch's adapter as a model of its own; the final one is the job's.

    Raises:
        LeaseLostError: The job was stopped, or is another worker's by now: nothing is kept.
        StorageError: The disk is full or read-only.
    """
    name = _model_name(run, prepared, None if checkpoint.final else checkpoint.step)
    folder = f"{run.job.id}-step-{checkpoint.step}"
    _copy_adapter(run, checkpoint, run.settings.adapters / folder)
    model = FineTunedModel(
        name=name,
        created_at=int(time.time()),
        job_id=run.job.id,
        base=prepared.base.model.name,
        hosted_name=prepared.base.hosted_name,
        adapter=folder,
        step=None if checkpoint.final else checkpoint.step,
        system_prompt=prepared.system_prompt,
    )
    metrics = {key: value for key, value in checkpoint.metrics.items() if key != "total_steps"}
    jobs, models = run.stores.jobs, run.stores.models
    with run.stores.transaction():
        models.register(model)
        jobs.add_checkpoint(run.job.id, model=name, step=checkpoint.step, metrics=metrics)
        if not checkpoint.final:  # that one is reported as the new model
            run.log.info(
                f"Checkpoint created at step {checkpoint.step} with Snapshot ID: {name}",
                f"checkpoint-{checkpoint.step}",
            )
        old = jobs.drop_checkpoints(run.job.id, keep=_CHECKPOINTS_PER_JOB)
        superseded = unregister([one.model for one in old], models)
    remove_adapters(superseded, run.settings)


def finish(run: Run, prepared: Prepared, trained_tokens: int) -> None:
    """End a job whose model is published, with the metrics of its steps as its result file."""
    run.control.check()
    name = _model_name(run, prepared)
    stores = run.stores
    result = base64.b64encode(run.log.result_file())
    with stores.files.receive([result]) as incoming, stores.transaction():
        run.log.info(f"New fine-tuned model created: {name}", "model")
        file = stores.files.keep(incoming, filename="step_metrics.csv", purpose="fine-tune-results")
        states.JOB.move(
            stores.jobs,
            run.job.id,
            "succeeded",
            finished_at=int(time.time()),
            fine_tuned_model=name,
            trained_tokens=trained_tokens,
            result_files=[file.id],
            estimated_finish=None,
        )
        run.log.info("The job has successfully completed", "succeeded")
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def model_name(job: Job, hosted_name: str, organization: str, step: int | None = None) -> str:
    """`ft:BASE:ORG:SUFFIX:ID`; a checkpoint's has an id of its own, followed by `:ckpt-step-N`.

    The id follows from job and step, so that a job that is run again finds its own names.
    """
    digest = hashlib.sha256(f"{job.id}/{step or 'final'}".encode()).digest()
    tail = base64.b32encode(digest).decode().lower()[:8]
    # A name has five parts between colons, and travels in paths of URLs.
    base = re.sub(r"[^\w.-]+", "-", hosted_name)
    suffix = re.sub(r"[^\w.-]+", "-", job.suffix or "")
    name = f"ft:{base}:{organization}:{suffix}:{tail}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def delete_model(name: str, models: ModelStore, settings: Settings) -> None:
    """Delete a fine-tuned model, and its adapter unless another model uses it.

    Raises:
        NotFoundError: There is none of this name.
    """
    models.get(name)
    remove_adapters(unregister([name], models), settings)


def unregister(names: Collection[str], models: ModelStore) -> list[str]:
    """Remove the models of these names that are registered.

    Returns:
        The folders of adapters that no model uses any more. The caller removes them once the
        transaction is over.
    """
    adapters = set()
    for model in models.list():
        if model.name in names:
            adapters.add(model.adapter)
            models.delete(model.name)
    return sorted(adapters - {model.adapter for model in models.list()})


def remove_adapters(folders: Iterable[str], settings: Settings) -> None:
    """Remove adapters from the disk, by the names of their folders."""
    for folder in folders:
        shutil.rmtree(settings.adapters / folder, ignore_errors=True)


def _model_name(run: Run, prepared: Prepared, step: int | None = None) -> str:
    return model_name(run.job, prepared.base.hosted_name, run.settings.organization, step)


def _copy_adapter(run: Run, checkpoint: EpochCheckpoint, target: Path) -> None:
    """Copy a checkpoint's adapter so that `target` appears complete or not at all."""
    if target.is_dir():
        return
    with atomic_folder(target, fence=partial(run.control.fence, ["running"])) as staging:
        shutil.copytree(checkpoint.adapter, staging, dirs_exist_ok=True)
        if checkpoint.complete is not None:
            checkpoint.complete(staging)
