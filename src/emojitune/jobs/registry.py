"""Fine-tuned models: their names, and their adapters on the disk."""

import base64
import hashlib
import re
import shutil
from pathlib import Path

from emojitune.settings import Settings
from emojitune.store.jobs import Job
from emojitune.store.models import ModelStore


def model_name(job: Job, hosted_name: str, organization: str, step: int | None = None) -> str:
    """`ft:BASE:ORG:SUFFIX:ID`, a checkpoint's with an id of its own and `:ckpt-step-N` behind it.

    The id follows from job and step, so that a job that is run again finds its own names.
    """
    digest = hashlib.sha256(f"{job.id}/{step or 'final'}".encode()).digest()
    tail = base64.b32encode(digest).decode().lower()[:8]
    # A name has five parts between colons, and travels in paths of URLs.
    base = re.sub(r"[^\w.-]+", "-", hosted_name)
    suffix = re.sub(r"[^\w.-]+", "-", job.suffix or "")
    name = f"ft:{base}:{organization}:{suffix}:{tail}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def copy_adapter(source: Path, target: Path) -> None:
    """Copy an adapter's folder so that `target` is there whole or not at all."""
    if target.is_dir():
        return
    staging = target.with_name(target.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(source, staging)
    staging.replace(target)


def forget_model(name: str, models: ModelStore, settings: Settings) -> None:
    """Forget a fine-tuned model, and remove its adapter unless another model uses it.

    Raises:
        NotFoundError: There is none of this name.
    """
    adapter = models.get(name).adapter
    models.delete(name)
    if all(other.adapter != adapter for other in models.list()):
        shutil.rmtree(settings.adapters / adapter, ignore_errors=True)
