"""From folders to models that reply: a base, an adapter beside it, or the two merged.

Functions block while the executor's thread computes: it is the one that runs the passes.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from emojitune.inference.chat_model import BaseModelRuntime, ChatModel
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.inference.types import InferenceModel
from emojitune.models import loader
from emojitune.models.backend import Backend, HFBackend, LlamaBackend
from emojitune.models.linear import PackedLinear
from emojitune.models.loader import LoadedHF, Precision


def load_base(backend: Backend, precision: Precision, executor: Executor) -> ChatModel:
    """A base model, alone.

    Raises:
        ModelError: Its folder holds no causal language model with a chat template.
    """
    return executor.submit(_load_base, backend, precision, executor).result()


def load_tuned(
    backend: Backend,
    adapter: Path,
    precision: Precision,
    executor: Executor,
    get_base: Callable[[], InferenceModel],
) -> InferenceModel:
    """A fine-tuned model: beside its base where the backend can, else with weights of its own.

    Args:
        get_base: The loaded base; called only where it is shared, in this thread.

    Raises:
        ModelError: A folder is not whole, or the adapter is for another base model.
    """
    match backend:
        case LlamaBackend():
            return executor.submit(get_base().with_adapter, adapter).result()
        case HFBackend(folder):
            return executor.submit(_load_merged, folder, adapter, precision, executor).result()


def from_modules(loaded: LoadedHF, executor: Executor) -> ChatModel:
    """A model that runs through transformers' modules."""
    runner = HFRunner(loaded.module, loaded.precision.device)
    base = BaseModelRuntime(runner, loaded.renderer, loaded.context_length, executor)
    return ChatModel(base, loaded.vocabulary)


def _load_base(backend: Backend, precision: Precision, executor: Executor) -> ChatModel:
    match backend:
        case LlamaBackend():
            loaded = loader.load_llama(backend, precision, PackedLinear)
            runner = LlamaRunner(loaded.llama)
            base = BaseModelRuntime(runner, loaded.renderer, loaded.context_length, executor)
            return ChatModel(base)
        case HFBackend(folder):
            return from_modules(loader.load_hf(folder, precision), executor)


def _load_merged(
    folder: Path, adapter: Path, precision: Precision, executor: Executor
) -> ChatModel:
    return from_modules(loader.load_hf(folder, precision, adapter), executor)
