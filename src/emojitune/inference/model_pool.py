"""Models in memory: loaded when first asked for, the least recently used given up.

Knows names, bytes and how to call a loader, nothing of what it loads.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from emojitune.inference.types import InferenceModel

Get = Callable[[str], InferenceModel]
Load = Callable[[str, Get], InferenceModel]
"""From a name to a model. What lies beside a base asks for the base by the function it is given."""


@dataclass(slots=True)
class _Entry:
    model: "Future[InferenceModel]" = field(default_factory=Future)
    base: str | None = None


class ModelPool:
    """Models of at most `capacity()` bytes together, and always the one that was asked for last.

    It is asked for behind a model's loading. Threads that ask for a model that is being loaded wait
    for it. A base stays as long as a model lies beside it, and as long as it is busy.
    """

    def __init__(self, load: Load, *, capacity: Callable[[], int]) -> None:
        self._load = load
        self._capacity = capacity
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> InferenceModel:
        """The model called `name`; blocks while it is loaded. Raises what the loader raises."""
        with self._lock:
            entry = self._entries.get(name)
            first = entry is None
            if entry is None:
                entry = self._entries[name] = _Entry()
            self._entries.move_to_end(name)
            if entry.base is not None and entry.base in self._entries:
                self._entries.move_to_end(entry.base)
        if first:
            self._fill(name, entry)
        model = entry.model.result()
        self._shrink(name)
        return model

    def forget(self, name: str) -> None:
        """Give a model up, if it is loaded. Replies in the making are finished."""
        with self._lock:
            self._entries.pop(name, None)

    def _fill(self, name: str, entry: _Entry) -> None:
        def base(called: str) -> InferenceModel:
            entry.base = called
            return self.get(called)

        try:
            entry.model.set_result(self._load(name, base))
        except BaseException as error:  # those who wait must learn of it, whatever it is
            self.forget(name)
            entry.model.set_exception(error)

    def _shrink(self, wanted: str) -> None:
        """Give up what was not used for longest. At each call, since caches grow with their use."""
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
                needed = {wanted, *(entry.base for entry in self._entries.values())}
                if name not in needed and not model.busy:
                    del self._entries[name]
                    excess -= model.bytes
