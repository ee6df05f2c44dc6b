"""Blocking requests to a fine-tuned model in this process: no server, no event loop.

Imports torch when a model is loaded, not before.
"""

import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, Event, InferenceModel, InferenceRequest, Usage
from emojitune.models.torch_environment import import_libraries, prepare_inference
from emojitune.settings import Settings


class LocalClient:
    """A loaded model and the vocabulary that it was trained on, () if that was not closed."""

    def __init__(self, model: InferenceModel, vocabulary: tuple[str, ...]) -> None:
        self.vocabulary = vocabulary
        self._model = model

    def ask(self, request: InferenceRequest) -> tuple[tuple[Delta, ...], ...]:
        """The pieces of each of the `n` replies, once all are complete."""
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._model.start(request, events.put)
        replies: list[list[Delta]] = [[] for _ in range(request.sampling.n)]
        while not isinstance(event := events.get(), Usage):
            if isinstance(event, EmojituneError):
                raise event
            replies[event.index].append(event)
        return tuple(map(tuple, replies))


def open_adapter(folder: Path, settings: Settings) -> LocalClient:
    """Load an adapter folder with the base model that it names, downloading that if necessary."""
    prepare_inference()
    import_libraries()
    from emojitune.inference.loading import ModelLoader
    from emojitune.models import adapter

    info = adapter.read_info(folder)
    # Everything that uses torch here runs in one thread: see inference/engine/scheduler.py.
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="torch")
    loader = ModelLoader(settings, executor)
    return LocalClient(loader.load_adapter(folder, info.base, loader.load_base), info.vocabulary)
