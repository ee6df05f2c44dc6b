"""Base models, with or without an adapter, from disk to memory; the choice of device and dtype."""

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from emojitune.errors import ConfigurationError, EmojituneError, ModelError
from emojitune.models import adapter, lora
from emojitune.models.backend import HFBackend, LlamaBackend, choose_backend
from emojitune.models.linear import TrainableLinear
from emojitune.models.packed_llama import P, PackedLlama, Run, run_here
from emojitune.models.renderer import Renderer
from emojitune.models.untrusted.plain import PLAIN_TOKENIZER_CLASSES
from emojitune.settings import Settings


@dataclass(frozen=True, slots=True)
class Precision:
    """A model's device and dtype, with the reason in words for the user."""

    device: torch.device
    dtype: torch.dtype
    reason: str


@dataclass(frozen=True, slots=True)
class LoadedHF:
    """A model as transformers' modules, in evaluation mode.

    Attributes:
        context_length: In tokens.
        vocabulary: The closed set of replies of the adapter that is merged into it; () without.
    """

    module: nn.Module
    renderer: Renderer
    precision: Precision
    context_length: int
    vocabulary: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadedLlama(Generic[P]):
    """A plain Llama without modules. `context_length` is in tokens."""

    llama: PackedLlama[P]
    renderer: Renderer
    context_length: int


TrainableModel = LoadedHF | LoadedLlama[TrainableLinear]


def choose_precision(settings: Settings) -> Precision:
    """Device and dtype by the settings, or else the fastest ones of this machine.

    Raises:
        ConfigurationError: CUDA is requested, and there is no CUDA device.
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


def load_hf(folder: Path, precision: Precision, adapter_folder: Path | None = None) -> LoadedHF:
    """A base model through transformers, with an adapter merged into it if one is given.

    Raises:
        ModelError: The folder holds no causal language model with a chat template, or the adapter
            is for another base model.
    """
    import transformers

    transformers.logging.disable_progress_bar()
    with _as_model_errors(folder):
        module, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=precision.dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,  # without it transformers asks on standard input
            local_files_only=True,
            output_loading_info=True,
        )
        if missing := loading["missing_keys"]:  # transformers fills in random weights
            raise ValueError(f"it has no weights for {', '.join(sorted(missing))}")
        renderer = _renderer(folder, module.config.eos_token_id)
    module.to(precision.device).eval()
    vocabulary: tuple[str, ...] = ()
    if adapter_folder is not None:
        info, state = adapter.read(adapter_folder)
        lora.merge(module, state, scale=info.scale)
        vocabulary = info.vocabulary
    return LoadedHF(
        module=module,
        renderer=renderer,
        precision=precision,
        context_length=_context_length(module.config),
        vocabulary=vocabulary,
    )


def load_for_training(folder: Path, precision: Precision) -> TrainableModel:
    """A base model in the form in which it trains fastest.

    Raises:
        ModelError: The folder holds no causal language model with a chat template.
    """
    match choose_backend(folder):
        case LlamaBackend() as backend:
            return load_llama(backend, precision, TrainableLinear)
        case HFBackend():
            return load_hf(folder, precision)


def load_llama(
    backend: LlamaBackend,
    precision: Precision,
    pack: Callable[[Tensor], P],
    run: Run = run_here,
) -> LoadedLlama[P]:
    """A plain Llama without modules: adapters go beside it.

    Args:
        pack: Makes a linear layer of a weight; see PackedLlama.
        run: Runs each step that computes; the tokenizer is read in this thread.

    Raises:
        ModelError: A weight has another shape than config.json says, or there is no tokenizer.
    """
    config = backend.config
    with _as_model_errors(backend.folder):
        llama = PackedLlama(config, backend.weights, precision.device, precision.dtype, pack, run)
        renderer = _renderer(backend.folder, config.values.get("eos_token_id"))
    return LoadedLlama(llama, renderer, config.max_position_embeddings)


def load_renderer(folder: Path) -> Renderer:
    """A base model's renderer, without the weights.

    Raises:
        ModelError: The folder holds no tokenizer with a chat template.
    """
    with _as_model_errors(folder):
        return _renderer(folder, _read_json(folder / "config.json").get("eos_token_id"))


@contextmanager
def _as_model_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except EmojituneError:
        raise
    except Exception as error:  # for malformed files the libraries raise any exception
        raise ModelError(
            f"A base model is a folder with config.json, *.safetensors and a tokenizer. {folder} "
            f"could not be loaded: {textwrap.shorten(str(error), 400)}",
            param="model",
        ) from error


def _context_length(config: Any) -> int:
    return getattr(config, "max_position_embeddings", 2048)


_StopIds = int | list[int] | None


def _renderer(folder: Path, eos_token_id: _StopIds) -> Renderer:
    """The renderer of a folder; generation_config.json may have more ids that end a reply."""
    tokenizer = _tokenizer(folder)
    generation = _read_json(folder / "generation_config.json")
    stop_ids: _StopIds = generation.get("eos_token_id", eos_token_id)
    ids = {*(stop_ids if isinstance(stop_ids, list) else [stop_ids]), tokenizer.eos_token_id}
    return Renderer(tokenizer, [i for i in ids if i is not None])


def _tokenizer(folder: Path) -> Any:
    import transformers

    # AutoTokenizer, to choose a class, imports most of what transformers' models need.
    named = _read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    family = (
        transformers.PreTrainedTokenizerFast
        if named in PLAIN_TOKENIZER_CLASSES
        else transformers.AutoTokenizer
    )
    return family.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty without a file or an object."""
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    return value if isinstance(value, dict) else {}


def _bfloat16_support(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return True, f"bfloat16 on {name}"
        return False, f"float32: {name} has no bfloat16"
    # Without such units torch computes in bfloat16 too, but more slowly than in float32.
    capabilities = torch.cpu.get_capabilities()
    for unit in ("amx_bf16", "avx512_bf16", "sve_bf16"):
        if capabilities.get(unit):
            return True, f"bfloat16: this processor multiplies it in hardware ({unit})"
    return False, "float32: this processor has no units for bfloat16 products"
