"""Stand-ins for what trains and what chats, so that these tests see the HTTP edge alone."""

import threading
from collections.abc import Callable, Sequence

from emojitune.chat.reply import Alternative, ChatParameters, Delta, Usage
from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError, InvalidRequestError
from emojitune.jobs.dispatcher import Dispatcher

Listener = Callable[[Delta | Usage | EmojituneError], None]


class FakeDispatcher(Dispatcher):
    """Starts nothing; counts how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0

    def start(self) -> None: ...

    def wake(self) -> None:
        self.woken += 1

    def stop(self) -> None: ...


class FakeGeneration:
    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class FakeChatModel:
    """Says "(party)" in two pieces from a thread of its own; some prompts make it misbehave."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[Message, ...], ChatParameters]] = []
        self.generations: list[FakeGeneration] = []

    def start(
        self, messages: Sequence[Message], parameters: ChatParameters, listener: Listener
    ) -> FakeGeneration:
        self.asked.append((tuple(messages), parameters))
        prompt = messages[-1].content
        if prompt == "too long":
            raise InvalidRequestError(
                "This prompt is too long.", code="context_length_exceeded", param="messages"
            )
        if prompt == "break at once":
            raise RuntimeError("a secret detail")
        generation = FakeGeneration()
        self.generations.append(generation)
        speaker = threading.Thread(target=_speak, args=(prompt, parameters, generation, listener))
        speaker.start()
        return generation


def _speak(
    prompt: str, parameters: ChatParameters, generation: FakeGeneration, listener: Listener
) -> None:
    if prompt == "fail before the first word":
        listener(EmojituneError("The engine has stopped."))
        return
    likeliest = (Alternative("(party)", -0.5), Alternative("(cake)", float("-inf")))
    for index in range(parameters.n):
        listener(Delta(index, "(par"))
    if prompt == "fail midway":
        listener(EmojituneError("The engine has stopped."))
        return
    if prompt == "go on for ever":
        assert generation.cancelled.wait(10), "nobody cancelled"
        return
    for index in range(parameters.n):
        listener(Delta(index, "ty)", "stop", likeliest[: parameters.alternatives]))
    listener(Usage(prompt_tokens=20, completion_tokens=2 * parameters.n, cached_tokens=16))
