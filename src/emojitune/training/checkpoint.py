"""Checkpoints: an adapter with everything that is needed to resume its training exactly.

    step-12/
      adapter/                 the adapter, in PEFT's format
      optimizer.safetensors    Adam's two moments of each tensor
      position.json            completed epochs and steps, and the reports of the last step
      sha256.json              the digest of each of these files

A checkpoint appears by one rename and is valid only while its digests match; otherwise the one
before it is used. Nothing else has state: the order of examples and the learning rate follow from
the seed and the step, and no random number is drawn after the first step.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from emojitune import disk
from emojitune.errors import TrainingError
from emojitune.models import adapter, lora
from emojitune.training.adam import Adam
from emojitune.training.events import CheckpointSaved, StepCompleted, ValidationCompleted

_DIGESTS = "sha256.json"


@dataclass(frozen=True, slots=True)
class Position:
    """Completed epochs and optimizer steps of a run, and the reports of the last step."""

    epochs: int
    steps: int
    step: StepCompleted
    validation: ValidationCompleted | None = None


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint on disk."""

    position: Position
    event: CheckpointSaved

    def events(self) -> list[StepCompleted | ValidationCompleted | CheckpointSaved]:
        """The events around its saving, to be reported again after an interruption."""
        validation = self.position.validation
        return [self.position.step, *([validation] if validation else []), self.event]


class CheckpointFolder:
    """The checkpoints of one run; the newest `keep` of them stay.

    Args:
        info: Description of the adapter that is trained.
        fence: Checked before anything is written, and entered again while a checkpoint appears:
            writing takes a while, in which the run may become another process's.
    """

    def __init__(
        self,
        folder: Path,
        info: adapter.AdapterInfo,
        *,
        keep: int = 2,
        fence: disk.Fence = nullcontext,
    ) -> None:
        self._folder = folder
        self._info = info
        self._keep = keep
        self._fence = fence

    def save(
        self, state: Mapping[str, Tensor], optimizer: Adam, position: Position
    ) -> CheckpointSaved:
        """Write a checkpoint of the trainable tensors, by name.

        Raises:
            StorageError: The disk is full or read-only; earlier checkpoints stay.
        """
        disk.check_fence(self._fence)
        target, staging = self._folder / f"step-{position.steps}", self._folder / "saving.partial"
        with disk.atomic_folder(target, staging=staging, fence=self._fence) as folder:
            self._write(folder, state, optimizer, position)
        for old in self._newest_first()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)
        return _event(target, position)

    def restore(self, state: Mapping[str, Tensor], optimizer: Adam) -> SavedCheckpoint | None:
        """Copy the newest intact checkpoint, if there is one, into tensors and optimizer.

        Raises:
            TrainingError: It was made on another base model.
        """
        for folder in self._newest_first():
            if _is_intact(folder):
                info, tensors = adapter.read(folder / "adapter")
                if info.base != self._info.base:
                    raise _another_base(info.base, self._info.base)
                lora.load_adapter_state(state, tensors)
                position = _position(folder)
                optimizer.restore(load_file(folder / "optimizer.safetensors"), position.steps)
                return SavedCheckpoint(position, _event(folder, position))
        return None

    def _write(
        self,
        folder: Path,
        state: Mapping[str, Tensor],
        optimizer: Adam,
        position: Position,
    ) -> None:
        adapter.write(folder / "adapter", state, self._info)
        save_file(dict(optimizer.moments()), folder / "optimizer.safetensors")
        _write_json(folder / "position.json", asdict(position))
        _write_json(folder / _DIGESTS, _digests(folder))

    def _newest_first(self) -> list[Path]:
        folders = self._folder.glob("step-*")
        return sorted(folders, key=lambda f: int(f.name.removeprefix("step-")), reverse=True)


def _event(folder: Path, position: Position) -> CheckpointSaved:
    ends_epoch = position.epochs == position.step.epoch
    return CheckpointSaved(
        position.steps, position.step.epoch, folder / "adapter", ends_epoch=ends_epoch
    )


def _position(folder: Path) -> Position:
    fields = json.loads((folder / "position.json").read_text(encoding="utf-8"))
    validation = fields.pop("validation")
    return Position(
        fields["epochs"],
        fields["steps"],
        StepCompleted(**fields["step"]),
        ValidationCompleted(**validation) if validation else None,
    )


def _is_intact(folder: Path) -> bool:
    try:
        expected = json.loads((folder / _DIGESTS).read_text(encoding="utf-8"))
        return bool(expected == _digests(folder))
    except (OSError, ValueError):
        return False


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _DIGESTS:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            digests[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return digests


def _another_base(before: str, now: str) -> TrainingError:
    return TrainingError(
        f"This job began on the base model {before}, and the server's base model is {now} now: it "
        f"cannot continue with another. Create it again, or set EMOJITUNE_BASE_MODEL to {before} "
        "first.",
        code="base_model_changed",
        param="model",
    )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
