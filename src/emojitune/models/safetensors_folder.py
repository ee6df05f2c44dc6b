"""The tensors of a model's folder by name: one safetensors file, or several with an index.

Mapped, not read: what is taken out lies on the disk until it is used.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


class SafetensorsFolder:
    """Tensors by name. Empty where a folder has no safetensors."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Any] = {}
        self._place: dict[str, str] = {}
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        files = [single.name] if single.is_file() else []
        if not files and index.is_file():
            files = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        for file in files:
            self._files[file] = safe_open(folder / file, framework="pt")
            self._place |= dict.fromkeys(self._files[file].keys(), file)

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor, still on the disk.

        Raises:
            ValueError: It has another shape.
        """
        tensor: Tensor = self._files[self._place[name]].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, and config.json makes it {shape}"
            )
        return tensor
