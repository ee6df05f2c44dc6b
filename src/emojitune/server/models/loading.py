"""From a model's name to a model that chats: the one place of the server that needs torch."""

import os
from concurrent.futures import ThreadPoolExecutor

from emojitune.inference.model_pool import GetModel, LoadModel
from emojitune.inference.types import InferenceModel
from emojitune.models.catalog import is_fine_tuned, stored_base
from emojitune.models.torch_environment import import_libraries, prepare_inference
from emojitune.settings import Settings
from emojitune.store.models import ModelStore


def model_loader(settings: Settings, tuned: ModelStore) -> LoadModel:
    """A loader for the pool, from `tuned` models of every project: who asks was let in before.

    What it needs takes seconds to import: that begins now, in the background, and the first reply
    waits for what is left of it.
    """
    # All that uses torch in this process runs in one thread: see inference/engine/scheduler.py.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
    imported = executor.submit(_import_torch)

    def load(name: str, get: GetModel) -> InferenceModel:
        imported.result()
        from emojitune.inference.loading import load_base, load_tuned
        from emojitune.models.backend import choose_backend
        from emojitune.models.download import fetch
        from emojitune.models.loader import choose_precision

        precision = choose_precision(settings)
        if not is_fine_tuned(name):
            backend = choose_backend(fetch(stored_base(name), settings))
            return load_base(backend, precision, executor)
        model = tuned.get(name)
        backend = choose_backend(fetch(stored_base(model.base), settings))
        adapter = settings.adapters / model.adapter
        return load_tuned(backend, adapter, precision, executor, lambda: get(model.base))

    return load


def capacity(settings: Settings) -> int:
    """Bytes for the pool; asked when torch is there, since a GPU's memory is torch's to tell."""
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
