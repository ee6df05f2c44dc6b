"""Chat completions, plain and streamed."""

from collections.abc import Mapping
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Request, Response

from emojitune.inference.faults import Field
from emojitune.server.chat.assembler import ChatAssembler
from emojitune.server.chat.request import ChatRequest
from emojitune.server.context import Context
from emojitune.server.generation.faults import FieldName
from emojitune.server.generation.generate import generate
from emojitune.server.generation.streaming import while_connected
from emojitune.server.http.json_bodies import json_body
from emojitune.store.chat_completions import StoredChatCompletion

router = APIRouter(prefix="/v1/chat/completions")

_FIELD_NAMES = {
    Field.OUTPUT_FORMAT: FieldName("response_format"),
    Field.SCHEMA: FieldName("response_format"),
    Field.TOOL_PARAMETERS: FieldName("tools[{index}].function.parameters"),
}


@router.post("")
async def create(
    request: Request,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
    context: Context,
) -> Response:
    """Reply to a conversation, complete or as a stream of chunks."""

    async def store(completion: Mapping[str, Any]) -> None:
        if body.store:
            await to_thread.run_sync(
                context.stores.chat_completions.add, _stored_completion(completion, body)
            )

    work = generate(body, lambda: body.prompt, ChatAssembler(body), store, context, _FIELD_NAMES)
    return await while_connected(request, work)


def _stored_completion(completion: Mapping[str, Any], body: ChatRequest) -> StoredChatCompletion:
    return StoredChatCompletion(
        id=completion["id"],
        created_at=completion["created"],
        model=completion["model"],
        metadata=body.metadata,
        completion=completion,
        messages=[
            message.to_stored(f"{completion['id']}-{number}")
            for number, message in enumerate(body.messages)
        ],
    )
