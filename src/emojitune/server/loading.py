"""From a model's name to a model that chats: the one place of the server that needs torch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from emojitune.chat.reply import Replier
from emojitune.models.catalog import base_called
from emojitune.models.torch_environment import import_libraries, prepare_chat
from emojitune.settings import Settings
from emojitune.store.models import ModelStore


def model_loader(settings: Settings, tuned: ModelStore) -> Callable[[str], Replier]:
    """A loader for the pool. What it needs takes seconds to import: that begins now, in the
    background, and the first reply waits for what is left of it."""
    # All that uses torch in this process runs in one thread: see chat/engine.py.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
    imported = executor.submit(_import_torch)

    def load(name: str) -> Replier:
        imported.result()
        from emojitune.chat.completion import ChatModel
        from emojitune.models import loader
        from emojitune.models.download import fetch

        adapter = None
        if name.startswith("ft:"):
            model = tuned.get(name)
            name, adapter = model.base, settings.adapters / model.adapter
        folder = fetch(base_called(name), settings)
        precision = loader.choose_precision(settings)
        loaded = executor.submit(loader.load, folder, precision, adapter).result()
        return ChatModel(loaded, executor)

    return load


def _import_torch() -> None:
    prepare_chat()
    import_libraries()
    import emojitune.chat.completion  # noqa: F401
