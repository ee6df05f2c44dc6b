"""Responses: create and continue, plain and streamed; retrieve, delete, input items."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from openai.types.responses.input_token_count_response import InputTokenCountResponse

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError, InvalidRequestError, NotFoundError
from emojitune.inference.types import Delta, Usage
from emojitune.server.context import Context, RequestContext
from emojitune.server.generation.bridge import Bridge
from emojitune.server.generation.streaming import EventStream, start_generation, while_connected
from emojitune.server.http.json_bodies import json_body
from emojitune.server.http.json_responses import encode_json, json_response
from emojitune.server.models.resolver import load_chat_model
from emojitune.server.responses.assembler import (
    Frames,
    ResponseAssembler,
    failure_events,
    final_event,
)
from emojitune.server.responses.items import ItemReference, Reasoning, check_items, to_messages
from emojitune.server.responses.request import CountRequest, Include, PromptBody, ResponseRequest
from emojitune.store.pagination import Order, slice_page
from emojitune.store.responses import StoredResponse

router = APIRouter(prefix="/v1/responses")

Items = Sequence[Mapping[str, Any]]
_Store = Callable[[Mapping[str, Any]], Awaitable[None]]

_CALLED_HERE = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
}

IncludeQuery = Annotated[
    list[Include] | None,
    Query(
        description="More to be shown, one name for each occurrence: whatever the response was "
        "created with is shown anyway."
    ),
]
# The official clients write an array's name with brackets.
IncludeArray = Annotated[
    list[Include] | None, Query(alias="include[]", description="The same as `include`.")
]


@dataclass(frozen=True, slots=True)
class _Conversation:
    """What a response answers: all items, the oldest first, behind the instructions.

    `new` are those of them that no earlier response has.
    """

    items: Items
    new: Items
    instructions: str | None

    @property
    def messages(self) -> tuple[Message, ...]:
        first = () if self.instructions is None else (Message("system", self.instructions),)
        return (*first, *to_messages(self.items))

    @property
    def mentions_json(self) -> bool:
        return any("json" in message.content.lower() for message in self.messages)


@router.post("")
async def create(
    request: Request,
    body: Annotated[ResponseRequest, Depends(json_body(ResponseRequest))],
    context: Context,
) -> Response:
    """Reply to a conversation, whole or as a stream of events, and store the response."""
    respond = _streamed if body.stream else _whole
    return await while_connected(request, respond(body, context))


@router.post("/input_tokens")
async def count_input_tokens(
    request: Request,
    body: Annotated[CountRequest, Depends(json_body(CountRequest))],
    context: Context,
) -> Response:
    """Count the tokens that the model would read."""

    def count() -> int:
        name = body.model or context.settings.base_model
        messages = _conversation(body, context).messages
        model = load_chat_model(name, context)
        with _called_as_here():
            return model.count_tokens(messages, body.parameters)

    async def work() -> Response:
        tokens = await to_thread.run_sync(
            count, limiter=context.load_limiter, abandon_on_cancel=True
        )
        return json_response(
            InputTokenCountResponse(object="response.input_tokens", input_tokens=tokens)
        )

    return await while_connected(request, work())


@router.post("/compact")
def compact() -> Response:
    """Compact a conversation: always refused."""
    raise InvalidRequestError(
        "Conversations aren't compacted here. Send the items that matter, or a summary that you "
        "had written, as the 'input' of a new response.",
        code="unsupported_value",
    )


@router.get("/{response_id}")
def retrieve(
    response_id: str,
    context: Context,
    include: IncludeQuery = None,
    include_array: IncludeArray = None,
    stream: Annotated[
        bool, Query(description="Send it as a stream of events: not for one that has ended.")
    ] = False,
    starting_after: Annotated[
        int | None, Query(description="Where to begin a stream: not without `stream`.")
    ] = None,
    include_obfuscation: Annotated[
        bool | None, Query(description="Pad the events of a stream: nothing is padded.")
    ] = None,
) -> Response:
    """Show a stored response."""
    stored = context.responses.get(response_id)
    if stream or starting_after is not None:
        raise InvalidRequestError(
            "Only a response created with both 'background' and 'stream' can be streamed again, "
            "and none is made in the background here. Leave 'stream' and 'starting_after' out to "
            "get the whole response.",
            code="unsupported_parameter",
            param="stream" if stream else "starting_after",
        )
    return _json(stored.response)


@router.delete("/{response_id}")
def delete(response_id: str, context: Context) -> Response:
    """Delete a stored response with its items; those that continue it stay whole."""
    context.responses.delete(response_id)
    return _json({"id": response_id, "object": "response.deleted", "deleted": True})


@router.post("/{response_id}/cancel")
def cancel(response_id: str, context: Context) -> Response:
    """Cancel a background response: there are none, so this is always refused."""
    context.responses.get(response_id)
    raise InvalidRequestError("Cannot cancel a synchronous response.")


@router.get("/{response_id}/input_items")
def list_input_items(
    response_id: str,
    context: Context,
    after: Annotated[str | None, Query(description="Items behind the one with this id.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Items of one page at most.")] = 20,
    order: Annotated[Order, Query(description="`desc` begins with the last said.")] = "desc",
    include: IncludeQuery = None,
    include_array: IncludeArray = None,
) -> Response:
    """List the items that a response answers, with those of the responses that it continues."""
    items = context.responses.get(response_id).input_items
    page = slice_page(items, after=after, limit=limit, order=order)
    ids = [item["id"] for item in page.items]
    return _json(
        {
            "object": "list",
            "data": page.items,
            "has_more": page.has_more,
            "first_id": ids[0] if ids else "",  # strings by the document, also on an empty page
            "last_id": ids[-1] if ids else "",
        }
    )


async def _whole(body: ResponseRequest, context: RequestContext) -> Response:
    bridge, assembler = Bridge(), ResponseAssembler(body)
    try:
        conversation = await _start(bridge, body, context)
        with _called_as_here():
            async for event in bridge.events():
                if isinstance(event, Usage):
                    assembler.end()
                    response = assembler.ended(event)
                    await _store(assembler, response, conversation, context)
                    return _json(response)
                assembler.add(event)
    finally:
        bridge.close()
    raise AssertionError("a model's last word is its usage")


async def _streamed(body: ResponseRequest, context: RequestContext) -> Response:
    bridge, assembler = Bridge(), ResponseAssembler(body)
    try:
        conversation = await _start(bridge, body, context)
        # The first word is awaited, so that an error before it is an ordinary HTTP error.
        events = bridge.events()
        with _called_as_here():
            first = await anext(events)
    except BaseException:
        bridge.close()
        raise

    async def store(response: Mapping[str, Any]) -> None:
        await _store(assembler, response, conversation, context)

    return EventStream(_frames(assembler, first, events, store), bridge)


async def _frames(
    assembler: ResponseAssembler,
    first: Delta | Usage,
    events: AsyncIterator[Delta | Usage],
    store: _Store,
) -> AsyncIterator[bytes]:
    frame = Frames().frame
    for step in assembler.opening():
        yield frame(step)
    event: Delta | Usage = first
    try:
        while isinstance(event, Delta):
            for step in assembler.add(event):
                yield frame(step)
            with _called_as_here():
                event = await anext(events)
    except EmojituneError as error:
        response = assembler.failed(error)
        await store(response)
        for step in failure_events(error, response):
            yield frame(step)
        return
    for step in assembler.end():
        yield frame(step)
    response = assembler.ended(event)
    # Before the last event: who has read it may ask for the response at once.
    await store(response)
    yield frame(final_event(response))


async def _start(bridge: Bridge, body: ResponseRequest, context: RequestContext) -> _Conversation:
    conversation = await to_thread.run_sync(_conversation, body, context)
    with _called_as_here():
        await start_generation(bridge, body.model, conversation.messages, body.parameters, context)
    return conversation


@contextmanager
def _called_as_here() -> Iterator[None]:
    """The chat models name what is wrong as chat completions call it."""
    try:
        yield
    except EmojituneError as error:
        if (error.param, error.code) == ("response_format", "invalid_value"):
            error.param, error.code = "text.format.schema", "invalid_json_schema"
        elif error.param is not None:
            named = _CALLED_HERE.get(error.param, error.param)
            error.message = error.message.replace(f"'{error.param}'", f"'{named}'")
            error.param = named.replace(".function.parameters", ".parameters")
        raise


def _conversation(body: ResponseRequest | CountRequest, context: RequestContext) -> _Conversation:
    stored = _referenced(body, context)
    given = [
        stored[item.id] if isinstance(item, ItemReference) else item.to_item()
        for item in body.input
        if not isinstance(item, Reasoning)
    ]
    items = [*_history(body, context), *given]
    check_items(items)
    new = [item for item in given if item["id"] not in stored]
    conversation = _Conversation(items, new, body.instructions)
    if body.text.format.type == "json_object" and not conversation.mentions_json:
        raise InvalidRequestError(
            "Response input messages must contain the word 'json' in some form to use "
            "'text.format' of type 'json_object'.",
            param="input",
        )
    return conversation


def _referenced(body: PromptBody, context: RequestContext) -> Mapping[str, Mapping[str, Any]]:
    """The stored items that the input only names, by their ids."""
    ids = [item.id for item in body.input if isinstance(item, ItemReference)]
    return context.responses.items(ids) if ids else {}


def _history(body: PromptBody, context: RequestContext) -> Items:
    """The conversation up to and with the previous response, without its instructions."""
    if body.previous_response_id is None:
        return ()
    try:
        previous = context.responses.get(body.previous_response_id)
    except NotFoundError:
        raise InvalidRequestError(
            f"Previous response with id '{body.previous_response_id}' not found.",
            code="previous_response_not_found",
            param="previous_response_id",
        ) from None
    return [*previous.input_items, *previous.response["output"]]


async def _store(
    assembler: ResponseAssembler,
    response: Mapping[str, Any],
    conversation: _Conversation,
    context: RequestContext,
) -> None:
    if not assembler.body.store:
        return
    stored = StoredResponse(
        id=assembler.id,
        created_at=assembler.created_at,
        previous_response_id=assembler.body.previous_response_id,
        response=response,
        input_items=conversation.items,
    )
    await to_thread.run_sync(context.responses.add, stored, conversation.new)


def _json(payload: Mapping[str, Any]) -> Response:
    return Response(encode_json(payload), media_type="application/json")
