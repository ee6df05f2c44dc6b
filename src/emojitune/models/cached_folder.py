"""Whether a base model's folder is complete, as far as its files show. No torch."""

import json
from pathlib import Path


def first_missing_part(folder: Path) -> str | None:
    """The first part that a model's folder lacks, in words; None when it is complete."""
    if not (folder / "config.json").is_file():
        return "config.json is missing"
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        return "there are no weights (*.safetensors)"
    return next((f"{path.name} is torn" for path in weights if not _is_complete(path)), None)


def _is_complete(path: Path) -> bool:
    """Whether a safetensors file has all bytes that its header declares."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size:
                return False
            header = json.loads(file.read(length))
            ends = [
                one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"
            ]
            return path.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
