"""Names of base models, and folders of adapters, to chat models in memory.

Everything blocks while the executor's thread computes: the one that runs the passes.
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from emojitune.inference.chat_model import BaseModelRuntime, ChatModel
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.inference.types import InferenceModel
from emojitune.models import available_memory, loader
from emojitune.models.backend import Backend, HFBackend, LlamaBackend, choose_backend
from emojitune.models.catalog import stored_base
from emojitune.models.download import fetch_checked
from emojitune.models.linear import PackedLinear
from emojitune.models.loader import LoadedHF, Precision, choose_precision
from emojitune.models.untrusted.limits import weight_bytes
from emojitune.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """Loads chat models by the settings, downloading their base models where necessary."""

    settings: Settings
    executor: Executor

    def load_base(self, name: str) -> ChatModel:
        """A base model without an adapter.

        Raises:
            ModelError: It cannot be downloaded, or is no causal language model with a chat
                template.
        """
        precision = choose_precision(self.settings)
        return load_base(self._backend(name), precision, self.executor)

    def load_adapter(
        self, adapter: Path, base: str, get_base: Callable[[str], InferenceModel]
    ) -> InferenceModel:
        """A fine-tuned model: the adapter in a folder, and the base model that it names.

        Args:
            get_base: From the base's name to the loaded model; see `load_adapter` below.
        """
        precision = choose_precision(self.settings)
        return load_adapter(
            self._backend(base), adapter, precision, self.executor, lambda: get_base(base)
        )

    def _backend(self, base: str) -> Backend:
        return choose_backend(fetch_checked(stored_base(base), self.settings))


def load_base(backend: Backend, precision: Precision, executor: Executor) -> ChatModel:
    """A base model without an adapter.

    Raises:
        ModelError: Its folder holds no causal language model with a chat template, or one that does
            not fit into memory.
    """
    _check_memory(backend.folder, precision)
    match backend:
        case LlamaBackend():
            return _load_llama(backend, precision, executor)
        case HFBackend(folder):
            return executor.submit(_load_hf, folder, precision, executor).result()


def load_adapter(
    backend: Backend,
    adapter: Path,
    precision: Precision,
    executor: Executor,
    get_base: Callable[[], InferenceModel],
) -> InferenceModel:
    """A fine-tuned model: on its shared base where the backend can, else with weights of its own.

    Args:
        get_base: The loaded base; called only where it is shared, in this thread.

    Raises:
        ModelError: A folder is incomplete, or the adapter is for another base model.
    """
    match backend:
        case LlamaBackend():
            return executor.submit(get_base().with_adapter, adapter).result()
        case HFBackend(folder):
            _check_memory(folder, precision)
            return executor.submit(_load_hf, folder, precision, executor, adapter).result()


def hf_chat_model(loaded: LoadedHF, executor: Executor) -> ChatModel:
    """A model that runs through transformers' modules."""
    runner = HFRunner(loaded.module, loaded.precision.device)
    runtime = BaseModelRuntime(runner, loaded.renderer, loaded.context_length, executor)
    return ChatModel(runtime, loaded.vocabulary)


def _load_llama(backend: LlamaBackend, precision: Precision, executor: Executor) -> ChatModel:
    """A plain Llama, loaded layer by layer: the passes of other models come between."""

    def run(step: Callable[[], T], /) -> T:
        return executor.submit(step).result()

    loaded = loader.load_llama(backend, precision, PackedLinear, run)
    runner = run(lambda: LlamaRunner(loaded.llama))
    return ChatModel(BaseModelRuntime(runner, loaded.renderer, loaded.context_length, executor))


def _check_memory(folder: Path, precision: Precision) -> None:
    """Raise ModelError where not even the weights fit; a GPU says so itself."""
    if precision.device.type == "cpu":
        available_memory.check(weight_bytes(folder), f"the base model in {folder}")


def _load_hf(
    folder: Path, precision: Precision, executor: Executor, adapter: Path | None = None
) -> ChatModel:
    return hf_chat_model(loader.load_hf(folder, precision, adapter), executor)
