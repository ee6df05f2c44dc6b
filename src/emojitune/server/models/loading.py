"""From a model's name to a chat model: the one place of the server that needs torch."""

import os
from concurrent.futures import ThreadPoolExecutor

from emojitune.inference.model_pool import GetModel, LoadModel
from emojitune.inference.types import InferenceModel
from emojitune.models.catalog import is_fine_tuned
from emojitune.models.torch_environment import import_libraries, prepare_inference
from emojitune.settings import Settings
from emojitune.store.models import ModelStore


def model_loader(settings: Settings, fine_tuned: ModelStore) -> LoadModel:
    """A loader for the pool, of base models and of every project's fine-tuned ones.

    Access was checked where the name was resolved. Importing the libraries takes seconds: it
    begins at once, in the background, and the first request waits until it is done.
    """
    # Everything that uses torch here runs in one thread: see inference/engine/scheduler.py.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
    imported = executor.submit(_import_torch)

    def load(name: str, get: GetModel) -> InferenceModel:
        imported.result()
        from emojitune.inference.loading import ModelLoader

        loader = ModelLoader(settings, executor)
        if not is_fine_tuned(name):
            return loader.load_base(name)
        model = fine_tuned.get(name)
        return loader.load_adapter(settings.adapters / model.adapter, model.base, get)

    return load


def capacity(settings: Settings) -> int:
    """Bytes for the pool; to be called once torch is imported, which knows a GPU's memory."""
    if settings.chat_memory is not None:
        return settings.chat_memory
    import torch

    from emojitune.models import loader

    device = loader.choose_precision(settings).device
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] // 4
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    except (AttributeError, ValueError, OSError):  # not on this system
        return 4 * 2**30


def _import_torch() -> None:
    prepare_inference()
    import_libraries()
    import emojitune.inference.loading  # noqa: F401
