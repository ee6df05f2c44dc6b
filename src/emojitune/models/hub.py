"""Questions to the Hugging Face hub that take a bounded time, also where nothing answers.

The timeouts of HTTP libraries bound a connection and the time between two bytes; neither a name
server that is silent nor an answer that trickles.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic

from emojitune.models.catalog import HubSource

HUB_SECONDS = 5.0
SILENT_SECONDS = 30.0  # many names must not each wait for a hub that hangs


class HubTimeoutError(Exception):
    """The hub does not answer."""

    def __init__(self) -> None:
        super().__init__(f"It did not answer within {HUB_SECONDS:g} seconds.")


class Hub:
    """Looks models up; one that has not answered is not asked again for half a minute."""

    def __init__(
        self, look_up: Callable[[HubSource], object], clock: Callable[[], float] = monotonic
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._silent_until = 0.0

    def ask_for(self, source: HubSource) -> None:
        """Return if the hub has `source`; raises its library's errors.

        Raises:
            HubTimeoutError: It did not answer in time, now or within the last half minute.
        """
        if self._clock() < self._silent_until:
            raise HubTimeoutError
        answer: Future[object] = Future()

        def look_up() -> None:
            try:
                answer.set_result(self._look_up(source))
            except BaseException as error:
                answer.set_exception(error)

        # A daemon: a process that ends does not wait for it.
        threading.Thread(target=look_up, name="hub", daemon=True).start()
        try:
            answer.result(HUB_SECONDS)
        except TimeoutError:
            self._silent_until = self._clock() + SILENT_SECONDS
            raise HubTimeoutError from None


def _model_info(source: HubSource) -> object:
    from huggingface_hub import HfApi

    return HfApi().model_info(source.repository, revision=source.revision, timeout=HUB_SECONDS)


HUB = Hub(_model_info)
