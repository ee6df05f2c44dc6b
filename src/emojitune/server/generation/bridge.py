"""The bridge from the engine's thread to the event loop, for one request to a chat model.

Knows nothing of HTTP or of OpenAI's objects.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, Event, Generation, Listener, Usage


class Bridge:
    """A generation that a worker thread starts, and whose events arrive in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()
        self._generation: Generation | None = None
        self._closed = False

    def start(self, start: Callable[[Listener], Generation]) -> None:
        """Start the generation, from any thread; errors of the request are raised here."""
        self._generation = start(self._receive)
        if self._closed:  # the client left in the meantime
            self._generation.cancel()

    async def events(self) -> AsyncIterator[Delta | Usage]:
        """Deltas, and last the usage.

        Raises:
            EmojituneError: The engine has ended the generation.
        """
        while True:
            item = await self._queue.get()
            if isinstance(item, EmojituneError):
                raise item
            yield item
            if isinstance(item, Usage):
                return

    def close(self) -> None:
        """Cancel the generation, so that the engine drops it; does nothing after its end."""
        self._closed = True
        if self._generation is not None:
            self._generation.cancel()

    def _receive(self, item: Event) -> None:
        # The engine may outlive a loop that is shutting down.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
