"""From a request to a response, complete or streamed: the same for every API that generates text.

Knows no API's objects: an Assembler builds them from the model's deltas.
"""

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Response

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, Generation, InferenceRequest, Listener, Usage
from emojitune.server.context import RequestContext
from emojitune.server.generation.bridge import Bridge
from emojitune.server.generation.faults import FieldNames, spelled
from emojitune.server.generation.streaming import EventStream
from emojitune.server.http.json_responses import json_response
from emojitune.server.models.resolver import get_chat_model

Store = Callable[[Mapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a reply.

    Attributes:
        result: The complete object, as it is sent and stored; None if the API has no object for a
            failed reply.
        frames: The last frames of a stream.
    """

    result: Mapping[str, Any] | None
    frames: Iterable[bytes]


class Assembler(Protocol):
    """Assembles an API's object from the deltas of one reply, and the frames of its stream.

    Frames are encoded while they are iterated over: a reply that is not streamed encodes none.
    """

    def start_events(self) -> Iterable[bytes]:
        """Return the frames that precede the first delta."""
        ...

    def add(self, delta: Delta) -> Iterable[bytes]:
        """Take in a delta; return its frames."""
        ...

    def finish(self, usage: Usage) -> Ending:
        """Return the ending of a reply that the model has completed."""
        ...

    def fail(self, error: EmojituneError) -> Ending:
        """Return the ending of a reply that an error has cut short."""
        ...


class GenerationBody(Protocol):
    """The part of a request's body that generating a reply depends on."""

    @property
    def model(self) -> str: ...

    @property
    def stream(self) -> bool: ...

    def inference_request(self, messages: Sequence[Message], owner: Hashable) -> InferenceRequest:
        """The request as models take it."""
        ...


async def generate(
    body: GenerationBody,
    messages: Callable[[], Sequence[Message]],
    assembler: Assembler,
    store: Store,
    context: RequestContext,
    field_names: FieldNames,
) -> Response:
    """Respond with a model's reply to `messages`: the complete object, or a stream of frames.

    Args:
        messages: Makes the messages, in a thread: there may be thousands.
        store: Stores the complete object, if the request says so.
        field_names: The API's words for the fields of requests.
    """
    bridge = Bridge()
    try:
        with spelled(field_names):
            await _start(bridge, body, messages, context)
        events = _events(bridge, field_names)
        # The first event is awaited, so that an error before it is an ordinary HTTP error.
        first = await anext(events)
        if not body.stream:
            return await _complete(first, events, assembler, store)
    except BaseException:
        bridge.close()
        raise
    return EventStream(_frames(first, events, assembler, store), bridge.close)


async def _start(
    bridge: Bridge,
    body: GenerationBody,
    messages: Callable[[], Sequence[Message]],
    context: RequestContext,
) -> None:
    model = await get_chat_model(body.model, context)

    def start(listener: Listener) -> Generation:
        return model.start(body.inference_request(messages(), context.project), listener)

    await context.threads.starting.run(context.project, lambda: bridge.start(start))


async def _events(bridge: Bridge, field_names: FieldNames) -> AsyncIterator[Delta | Usage]:
    with spelled(field_names):
        async for event in bridge.events():
            yield event


async def _complete(
    event: Delta | Usage,
    events: AsyncIterator[Delta | Usage],
    assembler: Assembler,
    store: Store,
) -> Response:
    while isinstance(event, Delta):
        assembler.add(event)
        event = await anext(events)
    result = assembler.finish(event).result
    assert result is not None, "only a failed reply may have no object"
    await store(result)
    return json_response(result)


async def _frames(
    event: Delta | Usage,
    events: AsyncIterator[Delta | Usage],
    assembler: Assembler,
    store: Store,
) -> AsyncIterator[bytes]:
    for frame in assembler.start_events():
        yield frame
    try:
        while isinstance(event, Delta):
            for frame in assembler.add(event):
                yield frame
            event = await anext(events)
    except EmojituneError as error:
        ending = assembler.fail(error)
    else:
        ending = assembler.finish(event)
    # Before the last frame: a client that has read it may request the object at once.
    if ending.result is not None:
        await store(ending.result)
    for frame in ending.frames:
        yield frame
