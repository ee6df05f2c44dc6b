"""The machine that a table was measured on, and its load."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "xllamacpp",
    "openvino-genai",
    "emojitune",
)


def state() -> dict[str, Any]:
    """Processor, its instructions for products, load, and versions."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        **({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}),
        "bf16 units": [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)],
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }


def free_memory() -> int:
    """Bytes that a process may take without pushing others out."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/meminfo does not say how much memory is available")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # not every bench needs every peer
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
