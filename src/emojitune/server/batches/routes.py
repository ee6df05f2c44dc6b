"""Batches: create, list, retrieve, cancel."""

import contextlib
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from openai.types import Batch as BatchObject
from pydantic import Field

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.jobs.states import BATCH
from emojitune.server.context import Context, RequestContext
from emojitune.server.files.lookup import require_file
from emojitune.server.files.requests import ExpiresAfter
from emojitune.server.http.asgi_client import accepts_post
from emojitune.server.http.idempotency import body_digest, create_once
from emojitune.server.http.json_bodies import Metadata, StrictModel, json_body
from emojitune.server.http.json_responses import json_response, page_response
from emojitune.server.http.query_params import After, LimitTo100
from emojitune.server.models.resolver import snapshot_name
from emojitune.store.batches import BATCH_PREFIX, Batch

router = APIRouter(prefix="/v1/batches")

# The endpoints that OpenAI supports in batches, of which the application has these.
_BATCH_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")

_TIMESTAMPS = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class CreateBatch(StrictModel):
    """The body of `POST /batches`."""

    input_file_id: str = Field(
        min_length=1, description="The file with the requests, uploaded with purpose batch."
    )
    endpoint: Literal[
        "/v1/responses",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/completions",
        "/v1/moderations",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/videos",
    ] = Field(description="The endpoint of all requests in the file.")
    completion_window: Literal["24h"] = Field(
        description="The time after which an unfinished batch expires."
    )
    metadata: Metadata | None = Field(None, description="Up to 16 key-value pairs of your own.")
    output_expires_after: ExpiresAfter | None = Field(
        None, description="When the output and error files expire, counted from their creation."
    )


@router.post("")
async def create(
    request: Request,
    body: Annotated[CreateBatch, Depends(json_body(CreateBatch))],
    context: Context,
) -> Response:
    """Run the requests of a file, a few at a time.

    A client that retries this request because its connection broke gets the batch that the first
    attempt created.
    """
    _require_endpoint(body.endpoint, request)

    def make(batch_id: str) -> Response:
        return json_response(_batch_object(_create_batch(batch_id, body, context)))

    return await create_once(request, body_digest(body), context, BATCH_PREFIX, make)


@router.get("")
def list_batches(
    context: Context,
    after: After = None,
    limit: LimitTo100 = 20,
) -> Response:
    """List the batches, the newest first."""
    page = context.stores.batches.list(after, limit)
    return page_response([_batch_object(batch) for batch in page.items], has_more=page.has_more)


@router.get("/{batch_id}")
def retrieve(batch_id: str, context: Context) -> Response:
    """Retrieve a batch."""
    return json_response(_batch_object(context.stores.batches.get(batch_id)))


@router.post("/{batch_id}/cancel")
def cancel(batch_id: str, context: Context) -> Response:
    """Cancel a batch; its output file has the responses up to then."""
    batch = context.stores.batches.get(batch_id)
    if batch.status != "cancelling":  # a retry finds the batch cancelling, and is right
        batch = BATCH.move(context.stores.batches, batch_id, "cancelling")
        context.batch_runner.interrupt(batch_id)
    return json_response(_batch_object(batch))


def _create_batch(batch_id: str, body: CreateBatch, context: RequestContext) -> Batch:
    # A retry finds its batch even if the input file has been deleted since.
    with contextlib.suppress(NotFoundError):
        return context.stores.batches.get(batch_id)
    require_file(
        context.stores.files,
        body.input_file_id,
        purpose="batch",
        role="The input file of a batch",
        param="input_file_id",
    )
    expiry = body.output_expires_after
    batch = context.stores.batches.create(
        batch_id=batch_id,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        metadata=body.metadata,
        output_seconds=expiry.seconds if expiry else None,
    )
    context.batch_runner.wake()
    return batch


def _require_endpoint(endpoint: str, request: Request) -> None:
    supported = [path for path in _BATCH_ENDPOINTS if accepts_post(request.app.routes, path)]
    if endpoint not in supported:
        raise InvalidRequestError(
            f"Batches of requests to {endpoint} are not supported here. Supported endpoints are: "
            f"{', '.join(supported)}.",
            code="unsupported_value",
            param="endpoint",
        )


def _batch_object(batch: Batch) -> BatchObject:
    errors = [asdict(error) for error in batch.errors]
    return BatchObject.model_validate(
        {
            "id": batch.id,
            "object": "batch",
            "endpoint": batch.endpoint,
            "model": batch.model and snapshot_name(batch.model),
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": batch.input_file_id,
            "completion_window": batch.completion_window,
            "status": batch.status,
            "output_file_id": batch.output_file_id,
            "error_file_id": batch.error_file_id,
            "created_at": batch.created_at,
            "expires_at": batch.expires_at,
            **{name: getattr(batch, name) for name in _TIMESTAMPS},
            "request_counts": {
                "total": batch.total,
                "completed": batch.completed,
                "failed": batch.failed,
            },
            "usage": {
                "input_tokens": batch.usage.input_tokens,
                "input_tokens_details": {"cached_tokens": batch.usage.cached_tokens},
                "output_tokens": batch.usage.output_tokens,
                "output_tokens_details": {"reasoning_tokens": batch.usage.reasoning_tokens},
                "total_tokens": batch.usage.input_tokens + batch.usage.output_tokens,
            },
            "metadata": batch.metadata,
        }
    )
