"""Checkpoints: an epoch's adapter with all that is needed to go on from it exactly.

    epoch-2/
      adapter/                 the adapter, in PEFT's format
      optimizer.safetensors    AdamW's two moments of each tensor
      position.json            epochs and steps done

A checkpoint appears by one rename. Nothing else has state: the order of examples and the learning
rate follow from the seed and the step.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from emojitune.models import adapter, lora
from emojitune.training.events import CheckpointSaved


@dataclass(frozen=True, slots=True)
class Position:
    """How far a run has come."""

    epochs: int
    steps: int


class CheckpointFolder:
    """The checkpoints of one run; `keep` of them, the newest, stay."""

    def __init__(self, folder: Path, info: adapter.AdapterInfo, *, keep: int = 3) -> None:
        self._folder = folder
        self._info = info
        self._keep = keep

    def save(
        self,
        state: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        position: Position,
    ) -> Path:
        """Write a checkpoint of the trainable tensors, by name; returns its adapter's folder."""
        target = self._folder / f"epoch-{position.epochs}"
        staging = self._folder / "saving.partial"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        adapter.write(staging / "adapter", state, self._info)
        moments = {
            f"{name}.{moment}": optimizer.state[parameter][moment]
            for name, parameter in state.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        save_file(moments, staging / "optimizer.safetensors")
        (staging / "position.json").write_text(json.dumps(asdict(position)), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
        for old in self._saved()[: -self._keep]:
            shutil.rmtree(old)
        return target / "adapter"

    def newest(self) -> CheckpointSaved | None:
        """The checkpoint that `restore` would take, if there is one."""
        saved = self._saved()
        if not saved:
            return None
        position = _position(saved[-1])
        return CheckpointSaved(position.steps, position.epochs, saved[-1] / "adapter")

    def restore(self, state: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> Position:
        """Put the newest checkpoint, if there is one, into the tensors and the optimizer."""
        saved = self._saved()
        if not saved:
            return Position(epochs=0, steps=0)
        newest = saved[-1]
        _, tensors = adapter.read(newest / "adapter")
        lora.load_adapter_state(state, tensors)
        position = _position(newest)
        moments = load_file(newest / "optimizer.safetensors")
        for name, parameter in state.items():
            optimizer.state[parameter] = {
                "step": torch.tensor(float(position.steps)),
                "exp_avg": moments[f"{name}.exp_avg"].to(parameter.device),
                "exp_avg_sq": moments[f"{name}.exp_avg_sq"].to(parameter.device),
            }
        return position

    def _saved(self) -> list[Path]:
        """Whole checkpoints, oldest first."""
        folders = self._folder.glob("epoch-*")
        return sorted(folders, key=lambda folder: int(folder.name.removeprefix("epoch-")))


def _position(folder: Path) -> Position:
    return Position(**json.loads((folder / "position.json").read_text(encoding="utf-8")))
