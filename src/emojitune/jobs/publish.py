"""Fine-tuned models: their names, and their adapters on the disk."""

import base64
import hashlib
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from contextlib import nullcontext
from pathlib import Path

from emojitune.disk import Permit, new_folder
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


def copy_adapter(
    source: Path,
    target: Path,
    complete: Callable[[Path], None] | None = None,
    *,
    permit: Permit = nullcontext,
) -> None:
    """Copy an adapter's folder so that `target` is there whole or not at all.

    `complete` may add to the copy before it is; `permit` is entered while it appears.

    Raises:
        StorageError: The disk is full or closed.
    """
    if target.is_dir():
        return
    with new_folder(target, permit=permit) as staging:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        if complete is not None:
            complete(staging)


def delete_model(name: str, models: ModelStore, settings: Settings) -> None:
    """Forget a fine-tuned model, and remove its adapter unless another model uses it.

    Raises:
        NotFoundError: There is none of this name.
    """
    models.get(name)
    remove_adapters(unregister([name], models), settings)


def unregister(names: Collection[str], models: ModelStore) -> list[str]:
    """Forget models of these names, as far as they are known. The folders of adapters that no
    model uses any more are the caller's to remove, once this is surely written."""
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
