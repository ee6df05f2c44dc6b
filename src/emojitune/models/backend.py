"""How a base model is run: decided here, once per folder.

A plain Llama runs through fused, packed linear layers, without transformers' modules: the same
numbers in a fraction of the time, with adapters beside weights that all models on the base share.
Every other causal language model runs through transformers' modules, with its adapter merged into
weights of its own. `loader` makes a loaded model of either; training, inference and the kNN
datastore dispatch on the backend or on the loaded model's type, and decide nothing again.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emojitune.models.llama import LlamaConfig, read_config
from emojitune.models.packed_llama import has_all_weights
from emojitune.models.safetensors_folder import SafetensorsFolder


@dataclass(frozen=True, slots=True)
class LlamaBackend:
    """A plain Llama: its folder, the sizes in config.json, and its weights, still on disk."""

    folder: Path
    config: LlamaConfig
    weights: SafetensorsFolder


@dataclass(frozen=True, slots=True)
class HFBackend:
    """Any other folder, for transformers to load, or to refuse with a reason."""

    folder: Path


Backend = LlamaBackend | HFBackend


def choose_backend(folder: Path) -> Backend:
    """The backend of a base model's folder; broken folders are left to transformers."""
    return read_llama(folder) or HFBackend(folder)


def read_llama(folder: Path) -> LlamaBackend | None:
    """The plain Llama in a folder; None where there is none, or a part of it is missing."""
    with suppress(Exception):  # for malformed files the libraries raise any exception
        if config := read_config(folder):
            weights = SafetensorsFolder(folder)
            if has_all_weights(config, weights):
                return LlamaBackend(folder, config, weights)
    return None
