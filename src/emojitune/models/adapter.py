"""Adapter folders in PEFT's format: write, read, verify.

    adapter_config.json          what PEFT reads: rank, alpha, target modules, base model
    adapter_model.safetensors    the tensors, named as PEFT names them
    emojitune.json               what inference needs in addition: the base, the closed vocabulary;
                                 and the SHA-256 of the tensors' file

safetensors only: nothing in an adapter folder is ever unpickled.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from emojitune.disk import atomic_folder
from emojitune.errors import ModelError

_PEFT_PREFIX = "base_model.model."
_TENSORS = "adapter_model.safetensors"
_INFO = "emojitune.json"
_DIGEST = "sha256"


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """The description of an adapter, without its tensors.

    Attributes:
        base: Name of the base model on which it was trained.
        rank: Rank of its updates.
        alpha: Updates are scaled by alpha / rank.
        vocabulary: The closed set of replies that it was trained for; empty when it is open.
    """

    base: str
    rank: int
    alpha: float
    vocabulary: tuple[str, ...] = ()

    @property
    def scale(self) -> float:
        """The factor of the updates: alpha / rank."""
        return self.alpha / self.rank


def write(folder: Path, state: Mapping[str, Tensor], info: AdapterInfo) -> None:
    """Write an adapter folder; it appears complete or not at all.

    Args:
        state: Tensors by the names of `lora.adapter_state`.

    Raises:
        StorageError: The disk is full or read-only.
    """
    tensors = {_peft_name(name): one.detach().cpu().contiguous() for name, one in state.items()}
    with atomic_folder(folder) as staging:
        save_file(tensors, staging / _TENSORS, metadata={"format": "pt"})
        _write_json(staging / "adapter_config.json", _peft_config(state, info))
        _write_json(staging / _INFO, {**asdict(info), _DIGEST: _digest(staging)})


def read_info(folder: Path) -> AdapterInfo:
    """Read the description of an adapter, without its tensors.

    Raises:
        ModelError: emojitune.json is missing or damaged.
    """
    try:
        fields = _info(folder)
        fields.pop(_DIGEST, None)
        info = AdapterInfo(**{**fields, "vocabulary": tuple(fields["vocabulary"])})
        if info.rank < 1 or not math.isfinite(info.scale):
            raise ValueError(f"rank {info.rank} and alpha {info.alpha} give no scale")
        return info
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, error) from error


def read(folder: Path) -> tuple[AdapterInfo, dict[str, Tensor]]:
    """Read an adapter: its description, and its tensors by the names of `lora.adapter_state`.

    Raises:
        ModelError: A file is missing or damaged, or a number in it is not finite.
    """
    info = read_info(folder)
    try:
        tensors = load_file(folder / _TENSORS)
    except (OSError, SafetensorError) as error:
        raise _damaged(folder, error) from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise _damaged(folder, f"{name} holds numbers that are not finite")
    return info, {_state_name(name): tensor for name, tensor in tensors.items()}


def verify(folder: Path) -> None:
    """Read an adapter as `read` does, and compare its tensors with their digest.

    Raises:
        ModelError: It is incomplete, or was changed after it was written.
    """
    read(folder)
    expected = _info(folder).get(_DIGEST)  # the oldest adapters have none
    if expected is not None and _digest(folder) != expected:
        raise _damaged(folder, f"{_TENSORS} is not what was written")


def _info(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / _INFO).read_text(encoding="utf-8"))
    return fields


def _digest(folder: Path) -> str:
    with (folder / _TENSORS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peft_config(state: Mapping[str, Tensor], info: AdapterInfo) -> dict[str, object]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": info.base,
        "r": info.rank,
        "lora_alpha": info.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({name.split(".")[-2] for name in state}),
    }


def _peft_name(name: str) -> str:
    return f"{_PEFT_PREFIX}{name}.weight"


def _state_name(name: str) -> str:
    return name.removeprefix(_PEFT_PREFIX).removesuffix(".weight")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _damaged(folder: Path, reason: object) -> ModelError:
    return ModelError(
        f"The adapter in {folder} is incomplete: {reason}. Run the fine-tuning job again.",
        code="adapter_damaged",
    )
