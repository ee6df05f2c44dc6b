"""Fakes of the dispatcher and of a chat model, so that these tests cover the HTTP edge alone."""

import threading
import time
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from emojitune.errors import EmojituneError
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.types import (
    Alternative,
    Delta,
    Embeddings,
    FinishReason,
    InferenceRequest,
    Listener,
    ToolCallDelta,
    Usage,
)
from emojitune.jobs.dispatcher import Dispatcher


class FakeDispatcher(Dispatcher):
    """Starts no job; counts how often it is woken."""

    def __init__(self) -> None:
        self.wake_count = 0

    def start(self) -> None: ...

    def wake(self) -> None:
        self.wake_count += 1

    def stop(self) -> None: ...


class FakeGeneration:
    """A generation that only records its cancellation."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


class FakeChatModel:
    """Replies "(party)" in two pieces from a thread of its own; some prompts make it misbehave."""

    bytes = 0
    busy = False

    def __init__(self) -> None:
        self.requests: list[InferenceRequest] = []
        self.generations: list[FakeGeneration] = []
        self.embedded: list[list[str | Sequence[int]]] = []
        self.embedding_cancelled = threading.Event()

    def start(self, request: InferenceRequest, listener: Listener) -> FakeGeneration:
        self.requests.append(request)
        prompt = request.messages[-1].content
        if prompt == "too long":
            raise RequestFault(
                Field.MESSAGES, "This prompt is too long.", code="context_length_exceeded"
            )
        if prompt == "break at once":
            raise RuntimeError("a secret detail")
        generation = FakeGeneration()
        self.generations.append(generation)
        thread = threading.Thread(target=_generate, args=(prompt, request, generation, listener))
        thread.start()
        return generation

    def count_tokens(self, request: InferenceRequest) -> int:
        return sum(len(message.content.split()) for message in request.messages)

    def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        cancelled: Callable[[], bool],
        owner: Hashable = None,
    ) -> Embeddings | None:
        """Embeds inputs by length, in 8 dimensions; "embed for ever" waits to be cancelled."""
        self.embedded.append(list(inputs))
        if inputs[0] == "embed for ever":
            while not cancelled():
                time.sleep(0.01)
            self.embedding_cancelled.set()
            return None
        vectors = np.array([[3.0, 4.0, len(text), *[0.0] * 5] for text in inputs], np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors, tokens=sum(map(len, inputs)))


def _generate(
    prompt: str, request: InferenceRequest, generation: FakeGeneration, listener: Listener
) -> None:
    if prompt == "fail before the first word":
        listener(EmojituneError("The engine has stopped."))
        return
    if prompt == "look and call":
        call = [ToolCallDelta(0, "", "weather"), ToolCallDelta(0, "{}")]
        for delta in (Delta(0, "Let me look."), *(Delta(0, "", tool_calls=(one,)) for one in call)):
            listener(delta)
        listener(Delta(0, "", "tool_calls"))
        listener(Usage(prompt_tokens=20, completion_tokens=9, cached_tokens=16))
        return
    text = prompt.removeprefix("say: ") if prompt.startswith("say: ") else "(party)"
    begin, end = text[:4], text[4:]
    likeliest = (Alternative("(party)", -0.5, 1.0), Alternative("(cake)", float("-inf"), 0.0))
    for index in range(request.sampling.n):
        listener(Delta(index, begin))
    if prompt == "fail midway":
        listener(EmojituneError("The engine has stopped."))
        return
    if prompt == "go on for ever":
        assert generation.cancelled.wait(10), "nobody cancelled"
        return
    reason: FinishReason = "length" if prompt == "never end" else "stop"
    for index in range(request.sampling.n):
        listener(Delta(index, end, reason, likeliest[: request.alternatives]))
    listener(Usage(prompt_tokens=20, completion_tokens=2 * request.sampling.n, cached_tokens=16))
