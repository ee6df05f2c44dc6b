"""Stored chat completions: list, retrieve, update, delete, and the messages they reply to."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from openai.types.chat import ChatCompletion, ChatCompletionDeleted, ChatCompletionStoreMessage
from pydantic import Field, model_validator

from emojitune.server.context import Context
from emojitune.server.http.json_bodies import Metadata, StrictModel, drop_nulls, json_body
from emojitune.server.http.json_responses import json_response, page_response
from emojitune.server.http.query_params import After, Limit, Order, metadata_filter
from emojitune.server.models.resolver import snapshot_name
from emojitune.store.chat_completions import StoredChatCompletion
from emojitune.store.pagination import slice_page

router = APIRouter(prefix="/v1/chat/completions")


class CompletionUpdate(StrictModel):
    """The body of `POST /chat/completions/{completion_id}`: only metadata can change."""

    metadata: Metadata | None = Field(description="Replaces the old metadata; null removes it.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        # Unlike elsewhere, the null of this key has a meaning.
        given = isinstance(data, dict) and "metadata" in data
        return {"metadata": None, **drop_nulls(data)} if given else drop_nulls(data)


@router.get("")
def list_completions(
    request: Request,
    context: Context,
    model: Annotated[
        str | None, Query(description="Only completions of this model, by its name or an alias.")
    ] = None,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> Response:
    """List stored completions, all or only those with every `metadata[key]=value` of the query."""
    page = context.stores.chat_completions.list(
        model=model and snapshot_name(model),
        metadata=metadata_filter(request),
        after=after,
        limit=limit,
        order=order,
    )
    completions = [_completion(stored) for stored in page.items]
    return page_response(completions, has_more=page.has_more)


@router.get("/{completion_id}")
def retrieve(completion_id: str, context: Context) -> Response:
    """Retrieve a stored completion."""
    return json_response(_completion(context.stores.chat_completions.get(completion_id)))


@router.post("/{completion_id}")
def update(
    completion_id: str,
    body: Annotated[CompletionUpdate, Depends(json_body(CompletionUpdate))],
    context: Context,
) -> Response:
    """Replace the metadata of a stored completion."""
    return json_response(
        _completion(context.stores.chat_completions.update(completion_id, body.metadata))
    )


@router.delete("/{completion_id}")
def delete(completion_id: str, context: Context) -> Response:
    """Delete a stored completion and its messages."""
    context.stores.chat_completions.delete(completion_id)
    return json_response(
        ChatCompletionDeleted(id=completion_id, object="chat.completion.deleted", deleted=True)
    )


@router.get("/{completion_id}/messages")
def list_messages(
    completion_id: str,
    context: Context,
    after: After = None,
    limit: Limit = 20,
    order: Order = "asc",
) -> Response:
    """List the messages that a stored completion replies to."""
    messages = context.stores.chat_completions.get(completion_id).messages
    page = slice_page(messages, after=after, limit=limit, order=order)
    # OpenAI's type knows the assistant's role alone; its service sends the real ones.
    items = [ChatCompletionStoreMessage.model_construct(**message) for message in page.items]
    return page_response(items, has_more=page.has_more)


def _completion(stored: StoredChatCompletion) -> ChatCompletion:
    return ChatCompletion.model_validate({**stored.completion, "metadata": stored.metadata})
