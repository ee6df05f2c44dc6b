"""Models in memory: loaded on first use, the least recently used evicted.

Knows names, bytes and how to call a loader; nothing of the models themselves.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from emojitune.inference.types import InferenceModel

GetModel = Callable[[str], InferenceModel]
LoadModel = Callable[[str, GetModel], InferenceModel]
"""From a name to a model; an adapter takes its base from the pool, by the function given."""


@dataclass(slots=True)
class _Entry:
    model: "Future[InferenceModel]" = field(default_factory=Future)
    base: str | None = None


class ModelPool:
    """Models of at most `capacity()` bytes together, and always the one requested last.

    `capacity` is called after a model is loaded. Threads that request a model while it is loaded
    wait for it. A base stays as long as the pool holds an adapter on it, or as long as it is busy.
    """

    def __init__(self, load: LoadModel, *, capacity: Callable[[], int]) -> None:
        self._load = load
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> InferenceModel:
        """The model called `name`; blocks while it is loaded. Raises what the loader raises."""
        with self._lock:
            entry = self._touch(name)
            first = entry is None
            if entry is None:
                entry = self._entries[name] = _Entry()
        if first:
            self._load_into(name, entry)
        model = entry.model.result()
        self._evict(name)
        return model

    def peek(self, name: str) -> "Future[InferenceModel] | None":
        """The model called `name`, loaded or being loaded in another thread; None if neither."""
        with self._lock:
            entry = self._touch(name)
        if entry is not None and entry.model.done():
            self._evict(name)
        return None if entry is None else entry.model

    def forget(self, name: str) -> None:
        """Evict a model, if it is loaded. Replies that it has begun are finished."""
        with self._lock:
            self._entries.pop(name, None)

    def _touch(self, name: str) -> _Entry | None:
        """The entry of a model, which with its base is now the one used last."""
        entry = self._entries.get(name)
        if entry is not None:
            self._entries.move_to_end(name)
            if entry.base is not None and entry.base in self._entries:
                self._entries.move_to_end(entry.base)
        return entry

    def _load_into(self, name: str, entry: _Entry) -> None:
        def get_base(base: str) -> InferenceModel:
            entry.base = base
            return self.get(base)

        try:
            entry.model.set_result(self._load(name, get_base))
        except BaseException as error:  # threads that wait must get it, whatever it is
            self.forget(name)
            entry.model.set_exception(error)

    def _evict(self, requested: str) -> None:
        """Evict the least recently used. At each call, since caches grow with use."""
        with self._lock:
            loaded = [
                (name, entry.model.result())
                for name, entry in self._entries.items()
                if entry.model.done()
            ]
            excess = sum(model.bytes for _, model in loaded) - self._capacity()
            for name, model in loaded:
                if excess <= 0:
                    return
                needed = {requested, *(entry.base for entry in self._entries.values())}
                if name not in needed and not model.busy:
                    del self._entries[name]
                    excess -= model.bytes
