"""Base model (and adapter) from disk to memory; picks device and number format, and says why."""

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from emojitune.errors import ConfigurationError, ModelError
from emojitune.models import adapter, lora
from emojitune.models.chat_template import Renderer
from emojitune.settings import Settings


@dataclass(frozen=True, slots=True)
class Precision:
    """Where a model runs and in which numbers, with the reason in words for the person."""

    device: torch.device
    dtype: torch.dtype
    reason: str


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory. `context_length` is in tokens; `vocabulary` is the adapter's."""

    module: nn.Module
    renderer: Renderer
    precision: Precision
    context_length: int
    vocabulary: tuple[str, ...] = ()


def choose_precision(settings: Settings) -> Precision:
    """Device and dtype by the settings, or by what this machine multiplies well.

    Raises:
        ConfigurationError: CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not cuda:
        raise ConfigurationError(
            "The device is set to cuda, but torch finds no CUDA device here. "
            "Set EMOJITUNE_DEVICE to auto or cpu, or install a CUDA build of torch.",
            param="device",
        )
    device = torch.device("cuda" if cuda and settings.device != "cpu" else "cpu")
    fast, why = _bfloat16_support(device)
    if settings.dtype != "auto":
        return Precision(device, getattr(torch, settings.dtype), f"{settings.dtype} as set")
    return Precision(device, torch.bfloat16 if fast else torch.float32, why)


def load(folder: Path, precision: Precision, adapter_folder: Path | None = None) -> LoadedModel:
    """A base model from its folder, with an adapter merged into it if one is given.

    Raises:
        ModelError: The folder holds no causal language model with a chat template.
    """
    import transformers

    transformers.logging.disable_progress_bar()
    try:
        module, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=precision.dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        if found["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ValueError(f"it has no weights for {', '.join(sorted(found['missing_keys']))}")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"A base model is a folder with config.json, *.safetensors and a tokenizer. {folder} "
            f"could not be loaded: {textwrap.shorten(str(error), 400)}",
            param="model",
        ) from error
    module.to(precision.device).eval()
    vocabulary: tuple[str, ...] = ()
    if adapter_folder is not None:
        info, state = adapter.read(adapter_folder)
        lora.merge(module, state, scale=info.alpha / info.rank)
        vocabulary = info.vocabulary
    return LoadedModel(
        module=module,
        renderer=Renderer(tokenizer, _stop_ids(module.generation_config, tokenizer)),
        precision=precision,
        context_length=getattr(module.config, "max_position_embeddings", 2048),
        vocabulary=vocabulary,
    )


def load_renderer(folder: Path) -> Renderer:
    """The renderer of a base model alone, without its weights.

    Raises:
        ModelError: The folder holds no tokenizer with a chat template.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        configuration = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        try:
            generation = transformers.GenerationConfig.from_pretrained(folder)
        except OSError:  # no such file: the model's own configuration has it
            generation = transformers.GenerationConfig.from_model_config(configuration)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"A base model is a folder with config.json and a tokenizer. {folder} could not be "
            f"read: {textwrap.shorten(str(error), 400)}",
            param="model",
        ) from error
    return Renderer(tokenizer, _stop_ids(generation, tokenizer))


def _stop_ids(generation: Any, tokenizer: Any) -> list[int]:
    configured = generation.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return [i for i in {*ids, tokenizer.eos_token_id} if i is not None]


def _bfloat16_support(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return True, f"bfloat16 on {name}"
        return False, f"float32: {name} has no bfloat16"
    # Without such units torch still computes in bfloat16, but slower than in float32.
    capabilities = torch.cpu.get_capabilities()
    for unit in ("amx_bf16", "avx512_bf16", "sve_bf16"):
        if capabilities.get(unit):
            return True, f"bfloat16: this processor multiplies it in hardware ({unit})"
    return False, "float32: this processor has no units for bfloat16 products"
