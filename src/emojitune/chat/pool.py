"""Models in memory: loaded when first asked for, the least recently used given up.

Knows names and how to call a loader, nothing of what it loads.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

from emojitune.chat.reply import Replier


class ModelPool:
    """At most `capacity` models. Threads that ask for one that is being loaded wait for it."""

    def __init__(self, load: Callable[[str], Replier], *, capacity: int = 4) -> None:
        self._load = load
        self._capacity = capacity
        self._models: OrderedDict[str, Future[Replier]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> Replier:
        """The model called `name`; blocks while it is loaded. Raises what the loader raises."""
        with self._lock:
            model = self._models.get(name)
            first = model is None
            if model is None:
                model = self._models[name] = Future()
            self._models.move_to_end(name)
            while len(self._models) > self._capacity:
                self._models.popitem(last=False)
        if first:
            self._fill(name, model)
        return model.result()

    def forget(self, name: str) -> None:
        """Give a model up, if it is loaded. Replies in the making are finished."""
        with self._lock:
            self._models.pop(name, None)

    def _fill(self, name: str, model: "Future[Replier]") -> None:
        try:
            model.set_result(self._load(name))
        except BaseException as error:  # those who wait must learn of it, whatever it is
            self.forget(name)
            model.set_exception(error)
