"""Responses: create and continue, plain and streamed; retrieve, delete, input items."""

from collections.abc import Mapping
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request, Response
from openai.types.responses.input_token_count_response import InputTokenCountResponse

from emojitune.errors import InvalidRequestError
from emojitune.inference.faults import Field
from emojitune.server.context import Context, RequestContext
from emojitune.server.generation.faults import FieldName, spelled
from emojitune.server.generation.generate import generate
from emojitune.server.generation.streaming import while_connected
from emojitune.server.http.json_bodies import json_body
from emojitune.server.http.json_responses import json_response, page_response
from emojitune.server.http.query_params import After, LimitTo100, Order
from emojitune.server.models.resolver import get_chat_model
from emojitune.server.responses.assembler import ResponseAssembler
from emojitune.server.responses.conversation import Conversation, read_conversation
from emojitune.server.responses.request import CountRequest, Include, ResponseRequest
from emojitune.store.pagination import slice_page
from emojitune.store.responses import StoredResponse

router = APIRouter(prefix="/v1/responses")

_FIELD_NAMES = {
    Field.MESSAGES: FieldName("input"),
    Field.MAX_TOKENS: FieldName("max_output_tokens"),
    Field.OUTPUT_FORMAT: FieldName("text.format"),
    # As on the hosted API, whose messages name chat completions' parameter here, too.
    Field.SCHEMA: FieldName("text.format.schema", "response_format", "invalid_json_schema"),
    Field.TOOL_PARAMETERS: FieldName("tools[{index}].parameters"),
}

IncludeQuery = Annotated[
    list[Include] | None,
    Query(
        description="Further output to return, one name per occurrence; the response always has "
        "all that it was created with."
    ),
]
# The official clients write an array's name with brackets.
IncludeArray = Annotated[
    list[Include] | None, Query(alias="include[]", description="The same as `include`.")
]


@router.post("")
async def create(
    request: Request,
    body: Annotated[ResponseRequest, Depends(json_body(ResponseRequest))],
    context: Context,
) -> Response:
    """Reply to a conversation, complete or as a stream of events, and store the response."""
    return await while_connected(request, _respond(body, context))


@router.post("/input_tokens")
async def count_input_tokens(
    request: Request,
    body: Annotated[CountRequest, Depends(json_body(CountRequest))],
    context: Context,
) -> Response:
    """Count the tokens of the input, as the model would read it."""

    async def work() -> Response:
        model = await get_chat_model(body.model or context.settings.base_model, context)

        def count() -> int:
            messages = read_conversation(body, context.stores.responses).messages
            with spelled(_FIELD_NAMES):
                return model.count_tokens(body.inference_request(messages, context.project))

        tokens = await context.threads.starting.run(context.project, count)
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
        bool, Query(description="Whether to stream the response: refused, since it has ended.")
    ] = False,
    starting_after: Annotated[
        int | None,
        Query(description="The event after which a stream starts: refused without `stream`."),
    ] = None,
    include_obfuscation: Annotated[
        bool | None, Query(description="Whether the events of a stream are padded: without effect.")
    ] = None,
) -> Response:
    """Retrieve a stored response."""
    stored = context.stores.responses.get(response_id)
    if stream or starting_after is not None:
        raise InvalidRequestError(
            "Only a response created with both 'background' and 'stream' can be streamed again, "
            "and none is made in the background here. Leave 'stream' and 'starting_after' out to "
            "get the complete response.",
            code="unsupported_parameter",
            param="stream" if stream else "starting_after",
        )
    return json_response(stored.response)


@router.delete("/{response_id}")
def delete(response_id: str, context: Context) -> Response:
    """Delete a stored response with its items; responses that continue it stay complete."""
    context.stores.responses.delete(response_id)
    return json_response({"id": response_id, "object": "response.deleted", "deleted": True})


@router.post("/{response_id}/cancel")
def cancel(response_id: str, context: Context) -> Response:
    """Cancel a background response: there are none, so this is always refused."""
    context.stores.responses.get(response_id)
    raise InvalidRequestError("Cannot cancel a synchronous response.")


@router.get("/{response_id}/input_items")
def list_input_items(
    response_id: str,
    context: Context,
    after: After = None,
    limit: LimitTo100 = 20,
    order: Order = "desc",
    include: IncludeQuery = None,
    include_array: IncludeArray = None,
) -> Response:
    """List the input items of a response, including those of the responses that it continues."""
    items = context.stores.responses.get(response_id).input_items
    page = slice_page(items, after=after, limit=limit, order=order)
    return page_response(page.items, has_more=page.has_more)


async def _respond(body: ResponseRequest, context: RequestContext) -> Response:
    conversation = await to_thread.run_sync(read_conversation, body, context.stores.responses)

    async def store(response: Mapping[str, Any]) -> None:
        if body.store:
            stored = _stored_response(response, body, conversation)
            await to_thread.run_sync(context.stores.responses.add, stored, conversation.new)

    assembler = ResponseAssembler(body)
    return await generate(
        body, lambda: conversation.messages, assembler, store, context, _FIELD_NAMES
    )


def _stored_response(
    response: Mapping[str, Any], body: ResponseRequest, conversation: Conversation
) -> StoredResponse:
    return StoredResponse(
        id=response["id"],
        created_at=int(response["created_at"]),
        previous_response_id=body.previous_response_id,
        response=response,
        input_items=conversation.items,
    )
