"""The tensors of a model's folder by name: one safetensors file, or several with an index.

Files are memory-mapped: a tensor is read from disk when it is used.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


class SafetensorsFolder:
    """The tensors by name; empty where a folder has no safetensors."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Any] = {}
        self._file_of: dict[str, str] = {}
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        files = [single.name] if single.is_file() else []
        if not files and index.is_file():
            files = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        for file in files:
            self._files[file] = safe_open(folder / file, framework="pt")
            self._file_of |= dict.fromkeys(self._files[file].keys(), file)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def get(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor `name`, memory-mapped.

        Raises:
            KeyError: There is none.
            ValueError: It has another shape than `shape`.
        """
        tensor: Tensor = self._files[self._file_of[name]].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{name} has the shape {tuple(tensor.shape)}, and config.json makes it {shape}"
            )
        return tensor
