"""Limits on the files of a base model, checked before a library reads them. No torch.

Far above what published models have: they only keep a file from taking all memory or time.
"""

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from emojitune.errors import ModelError

REFUSED = "model_refused"  # the code of its errors
_MIB = 2**20
_MAX_BYTES = {
    "model.safetensors.index.json": 16 * _MIB,
    "tokenizer_config.json": 4 * _MIB,
    "added_tokens.json": 4 * _MIB,
    "config.json": _MIB,
    "generation_config.json": _MIB,
    "special_tokens_map.json": _MIB,
    "chat_template.json": _MIB,
}
_MAX_TEMPLATE_BYTES = _MIB
# Vocabularies, whose names differ by family, and what is not read, such as a training's history.
_MAX_BYTES_OF_OTHERS = 64 * _MIB
_READ_AS_TEXT = (".json", ".jinja", ".txt", ".model")
_MAX_HEADER_BYTES = 16 * _MIB

# The greatest value of each size that config.json may have; the least is 1.
_MAX_SIZES = {
    "vocab_size": 2**22,
    "hidden_size": 2**17,
    "n_embd": 2**17,
    "d_model": 2**17,
    "intermediate_size": 2**20,
    "n_inner": 2**20,
    "num_hidden_layers": 2**10,
    "n_layer": 2**10,
    "num_layers": 2**10,
    "num_attention_heads": 2**12,
    "n_head": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**14,
    "max_position_embeddings": 2**25,
    "n_positions": 2**25,
    "num_labels": 2**16,  # each gets a name
}
_MAX_ROPE_NUMBER = 1e15
_ROPE_KEYS = ("rope_parameters", "rope_scaling", "rope_theta")


def check_files(folder: Path) -> None:
    """Check the sizes of a folder's files, the numbers in config.json, and the weights' headers.

    What is missing or broken is reported by its reader.

    Raises:
        ModelError: A limit is exceeded.
    """
    for path in sorted([*folder.glob("*"), *folder.glob("additional_chat_templates/*")]):
        with suppress(OSError):
            _check_file(path)
    _check_numbers(folder, _read_object(folder / "config.json"))


def weight_bytes(folder: Path) -> int:
    """Bytes of the weights in a folder, by the sizes of its files."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def refusal(folder: Path, found: str) -> ModelError:
    """The error for a base model that is refused for what its files hold."""
    return ModelError(
        f"A base model's files must stay within limits of size, time and memory. {folder} does "
        f"not: {found}. Use another base model, or a repaired copy of this one.",
        code=REFUSED,
        param="model",
    )


def _check_file(path: Path) -> None:
    if path.suffix in _READ_AS_TEXT:
        others = _MAX_TEMPLATE_BYTES if path.suffix == ".jinja" else _MAX_BYTES_OF_OTHERS
        limit = _MAX_BYTES.get(path.name, others)
        if _size(path) > limit:
            raise refusal(
                path.parent, f"{path.name} may have at most {limit} bytes, and has {_size(path)}"
            )
    elif path.suffix == ".safetensors":
        _check_header(path)


def _size(path: Path) -> int:
    """The size of a regular file: a pipe or device could be read without end."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise refusal(path.parent, f"{path.name} must be a regular file, and is none")
    return status.st_size


def _read_object(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _check_header(path: Path) -> None:
    """Check that a safetensors file declares no header larger than a limit or than the file."""
    size = _size(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES or 8 + length > size:
        raise refusal(
            path.parent,
            f"the header of {path.name} may have at most {_MAX_HEADER_BYTES} bytes and must end "
            f"within the file of {size} bytes, and it declares {length}",
        )


def _check_numbers(folder: Path, values: Mapping[str, Any]) -> None:
    for section in (values, values.get("text_config")):  # that of a model of text and images
        for key, value in section.items() if isinstance(section, dict) else ():
            if key in _MAX_SIZES and value is not None:
                # Some families have a size for each layer.
                for size in value if isinstance(value, list) else [value]:
                    _check_size(folder, key, size)
            if key in _ROPE_KEYS:
                for number in _numbers(value):
                    _check_rope(folder, key, number)


def _check_size(folder: Path, key: str, value: Any) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not 1 <= value <= _MAX_SIZES[key]:
        raise refusal(
            folder,
            f"{key} in config.json must be a whole number from 1 to {_MAX_SIZES[key]}, and is "
            f"{_abbreviate(value)}",
        )


def _check_rope(folder: Path, key: str, number: float) -> None:
    if not abs(number) <= _MAX_ROPE_NUMBER:  # nor is NaN
        raise refusal(
            folder,
            f"the numbers of {key} in config.json must be finite and at most "
            f"{_MAX_ROPE_NUMBER:.0e}, and one is {_abbreviate(number)}",
        )


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (int, float)):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)


def _abbreviate(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
