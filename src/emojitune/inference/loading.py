"""From folders to models that reply: a base, an adapter beside it, or the two merged.

All of it computes: call it in the thread that runs the passes.
"""

from concurrent.futures import Executor
from pathlib import Path

from emojitune.inference.chat_model import BaseModelRuntime, ChatModel
from emojitune.inference.decoding.knn import KNNDatastore
from emojitune.inference.engine.hf_runner import HFRunner
from emojitune.inference.engine.llama_runner import LlamaRunner
from emojitune.models import loader
from emojitune.models.linear import PackedLinear
from emojitune.models.loader import LoadedModel, Precision


def load_base(folder: Path, precision: Precision, executor: Executor) -> ChatModel:
    """A base model, the fast way where it `is_llama`, else through its own modules."""
    if not loader.is_llama(folder):
        return from_modules(loader.load(folder, precision), executor)
    loaded = loader.load_llama(folder, precision, PackedLinear)
    forward = LlamaRunner(loaded.llama)
    return ChatModel(BaseModelRuntime(forward, loaded.renderer, loaded.context_length, executor))


def load_beside(base: ChatModel, adapter: Path) -> ChatModel:
    """A tuned model that shares all but its adapter with a base that `is_llama`."""
    forward = base.runtime.runner
    assert isinstance(forward, LlamaRunner)
    found, vocabulary = loader.load_llama_adapter(forward.llama, adapter)
    neighbours = KNNDatastore.load(adapter, len(vocabulary))
    return ChatModel(base.runtime, vocabulary, found, neighbours)


def load_tuned(folder: Path, adapter: Path, precision: Precision, executor: Executor) -> ChatModel:
    """A tuned model with a base of its own, whatever base that is."""
    if loader.is_llama(folder):
        return load_beside(load_base(folder, precision, executor), adapter)
    return load_merged(folder, adapter, precision, executor)


def load_merged(folder: Path, adapter: Path, precision: Precision, executor: Executor) -> ChatModel:
    """A tuned model on any other base: weights of its own, through its modules."""
    return from_modules(loader.load(folder, precision, adapter), executor)


def from_modules(loaded: LoadedModel, executor: Executor) -> ChatModel:
    """A model that is run as transformers made it."""
    forward = HFRunner(loaded.module, loaded.precision.device)
    base = BaseModelRuntime(forward, loaded.renderer, loaded.context_length, executor)
    return ChatModel(base, loaded.vocabulary)
