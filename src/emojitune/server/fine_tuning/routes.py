"""Fine-tuning jobs: create, list, retrieve, cancel, pause, resume, events, checkpoints."""

import contextlib
import math
from collections.abc import Callable, Collection
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint

from emojitune.errors import InvalidStateError, NotFoundError
from emojitune.jobs import states
from emojitune.server.context import Context, RequestContext
from emojitune.server.files.lookup import require_file
from emojitune.server.fine_tuning.request import CreateJob
from emojitune.server.http.idempotency import body_digest, create_once, retry_count
from emojitune.server.http.json_bodies import json_body
from emojitune.server.http.json_responses import json_response, list_response, page_response
from emojitune.server.http.query_params import After, Limit, metadata_filter
from emojitune.server.models.resolver import resolve, serving_base, snapshot_name
from emojitune.store.ids import now
from emojitune.store.jobs import JOB_PREFIX, Job, JobCheckpoint, JobEvent

router = APIRouter(prefix="/v1/fine_tuning/jobs")


@router.post("")
async def create(
    request: Request, body: Annotated[CreateJob, Depends(json_body(CreateJob))], context: Context
) -> Response:
    """Create a fine-tuning job.

    A client that retries this request because its connection broke gets the job that the first
    attempt created; a request that is not a retry always creates a new job.
    """

    def make(job_id: str) -> Response:
        return json_response(_job_object(_create_job(job_id, body, context), context))

    return await create_once(request, body_digest(body), context, JOB_PREFIX, make)


@router.get("")
def list_jobs(
    request: Request,
    context: Context,
    after: After = None,
    limit: Limit = 20,
    metadata: Annotated[
        Literal["null"] | None,
        Query(
            description="`metadata[key]=value`, any number of times: only jobs with all of these; "
            "`metadata=null`: only jobs without metadata."
        ),
    ] = None,
) -> Response:
    """List fine-tuning jobs, the newest first."""
    page = context.stores.jobs.list(
        after, limit, metadata_filter(request), without_metadata=metadata is not None
    )
    return list_response([_job_object(job, context) for job in page.items], has_more=page.has_more)


@router.get("/{job_id}")
def retrieve(job_id: str, context: Context) -> Response:
    """Retrieve a fine-tuning job."""
    return json_response(_job_object(context.stores.jobs.get(job_id), context))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, request: Request, context: Context) -> Response:
    """Cancel an unfinished job; its checkpoints stay usable."""

    def change() -> Job:
        return states.JOB.move(
            context.stores.jobs, job_id, "cancelled", finished_at=now(), estimated_finish=None
        )

    message = "Fine-tuning job was cancelled"
    return _change_status(job_id, change, message, {"cancelled"}, request, context)


@router.post("/{job_id}/pause")
def pause(job_id: str, request: Request, context: Context) -> Response:
    """Pause a waiting or running job; a running one stops within a step."""

    def change() -> Job:
        return states.JOB.move(context.stores.jobs, job_id, "paused", estimated_finish=None)

    return _change_status(job_id, change, "Fine-tuning job paused", {"paused"}, request, context)


@router.post("/{job_id}/resume")
def resume(job_id: str, request: Request, context: Context) -> Response:
    """Resume a paused job; it continues from its last checkpoint."""

    def change() -> Job:
        return states.resume(context.stores.jobs, job_id)

    after = {"validating_files", "queued", "running"}
    return _change_status(job_id, change, "Fine-tuning job resumed", after, request, context)


@router.get("/{job_id}/events")
def list_events(job_id: str, context: Context, after: After = None, limit: Limit = 20) -> Response:
    """List a job's events, the newest first."""
    page = context.stores.jobs.events(job_id, after, limit)
    return list_response([_event_object(event) for event in page.items], has_more=page.has_more)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, context: Context, after: After = None, limit: Limit = 10
) -> Response:
    """List a job's checkpoints, the last step first: one per epoch, of the last three epochs."""
    page = context.stores.jobs.checkpoints(job_id, after, limit)
    checkpoints = [_checkpoint_object(checkpoint) for checkpoint in page.items]
    return page_response(checkpoints, has_more=page.has_more, empty_id=None)


class _JobObject(FineTuningJob):
    # OpenAI's own /pause returns "paused", which its type does not know; there is no better word.
    status: Literal[  # type: ignore[assignment]
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"
    ]


def _create_job(job_id: str, body: CreateJob, context: RequestContext) -> Job:
    """The job of this id: created now, or by an earlier attempt of the same request."""
    with contextlib.suppress(NotFoundError):
        return context.stores.jobs.get(job_id)
    resolve(body.model, context)
    _require_file(body.training_file, "A training file", "training_file", context)
    if body.validation_file is not None:
        _require_file(body.validation_file, "A validation file", "validation_file", context)
    job = context.stores.jobs.create(
        job_id=job_id,
        model=snapshot_name(body.model),
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed,
        hyperparameters=body.requested_hyperparameters,
        method={"type": body.method.type},
        metadata=body.metadata,
        integrations=[integration.to_stored() for integration in body.integrations or ()],
    )
    context.dispatcher.wake()
    return job


def _change_status(
    job_id: str,
    change: Callable[[], Job],
    message: str,
    done: Collection[str],
    request: Request,
    context: RequestContext,
) -> Response:
    """Change a job's status, add an event about it, and wake the dispatcher.

    A retry of a request whose response was lost succeeds too: it finds the job in one of the states
    `done` in which the first attempt left it.
    """
    try:
        with context.stores.transaction():
            job = change()
            context.stores.jobs.add_event(job_id, message)
    except InvalidStateError:
        job = context.stores.jobs.get(job_id)
        if not (retry_count(request) and job.status in done):
            raise
    else:
        context.dispatcher.wake()
    return json_response(_job_object(job, context))


def _require_file(file_id: str, role: str, param: str, context: RequestContext) -> None:
    require_file(context.stores.files, file_id, purpose="fine-tune", role=role, param=param)


def _job_object(job: Job, context: RequestContext) -> FineTuningJob:
    error = job.error and {
        "code": job.error.code,
        "message": job.error.message,
        "param": job.error.param,
    }
    return _JobObject.model_validate(
        {
            "id": job.id,
            "object": "fine_tuning.job",
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            "status": job.status,
            "model": job.model,
            "fine_tuned_model": job.fine_tuned_model,
            "organization_id": context.settings.organization,
            "training_file": job.training_file,
            "validation_file": job.validation_file,
            "result_files": list(job.result_files),
            "seed": job.seed,
            "hyperparameters": job.hyperparameters,
            "method": {
                "type": "supervised",
                "supervised": {"hyperparameters": job.hyperparameters},
            },
            "trained_tokens": job.trained_tokens,
            # A stopped worker may leave a value: a job that is not running has no estimated finish.
            "estimated_finish": job.estimated_finish if job.status == "running" else None,
            "error": error,  # null without an error: the SDK fails on an object of nulls
            "integrations": list(job.integrations),
            "metadata": job.metadata,
            "user_provided_suffix": job.suffix,
            "served_by": serving_base(job.model, context),  # ours
        }
    )


def _event_object(event: JobEvent) -> FineTuningJobEvent:
    return FineTuningJobEvent.model_validate(
        {
            "id": event.id,
            "object": "fine_tuning.job.event",
            "created_at": event.created_at,
            "level": event.level,
            "message": event.message,
            "type": event.type,
            "data": event.data,
        }
    )


def _checkpoint_object(checkpoint: JobCheckpoint) -> FineTuningJobCheckpoint:
    # Each metric is optional but never null: unknown and non-finite ones are left out.
    metrics = {
        name: value
        for name, value in checkpoint.metrics.items()
        if value is not None and math.isfinite(value)
    }
    return FineTuningJobCheckpoint.model_validate(
        {
            "id": checkpoint.id,
            "object": "fine_tuning.job.checkpoint",
            "created_at": checkpoint.created_at,
            "fine_tuned_model_checkpoint": checkpoint.model,
            "fine_tuning_job_id": checkpoint.job_id,
            "step_number": checkpoint.step,
            "metrics": metrics,
        }
    )
