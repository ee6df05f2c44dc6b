"""Fine-tuning jobs: create, list, retrieve, cancel, events, checkpoints."""

import math
import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from pydantic import BeforeValidator, Field, field_validator

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.jobs.states import move
from emojitune.server import models
from emojitune.server.replies import listing, reply
from emojitune.server.requests import Body, Limit, Metadata, json_body, refuse
from emojitune.server.services import Services, Shared
from emojitune.store.ids import now
from emojitune.store.jobs import Job, JobCheckpoint, JobEvent

router = APIRouter(prefix="/v1/fine_tuning/jobs")

_auto_is_unset = BeforeValidator(lambda value: None if value == "auto" else value)


class Hyperparameters(Body):
    """Each a number or "auto", which is also what a missing one means; None stands for it here."""

    n_epochs: Annotated[Annotated[int, Field(ge=1, le=50)] | None, _auto_is_unset] = None
    batch_size: Annotated[Annotated[int, Field(ge=1, le=256)] | None, _auto_is_unset] = None
    learning_rate_multiplier: Annotated[Annotated[float, Field(gt=0)] | None, _auto_is_unset] = None


class Supervised(Body):
    """How the supervised method is asked to learn."""

    hyperparameters: Hyperparameters = Hyperparameters()


class Method(Body):
    """The method by name; the other methods' parts may be there, and are not looked at."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: Supervised = Supervised()
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None

    @field_validator("type")
    @classmethod
    def _is_built(cls, name: str) -> str:
        if name != "supervised":
            refuse(
                "unsupported_value", f"The method '{name}' isn't built here yet: 'supervised' is."
            )
        return name


class CreateJob(Body):
    """The body of `POST /fine_tuning/jobs`."""

    model: str = Field(min_length=1)
    training_file: str = Field(min_length=1)
    hyperparameters: Hyperparameters = Hyperparameters()
    suffix: str | None = Field(None, min_length=1, max_length=64)
    validation_file: str | None = Field(None, min_length=1)
    integrations: list[dict[str, Any]] | None = None
    seed: int | None = Field(None, ge=0, le=2_147_483_647)
    method: Method = Method(type="supervised")
    metadata: Metadata | None = None

    @field_validator("integrations")
    @classmethod
    def _are_not_built(cls, integrations: list[Any] | None) -> list[Any] | None:
        if integrations:
            refuse("unsupported_value", "Integrations such as wandb aren't built here yet.")
        return integrations

    @property
    def asked(self) -> dict[str, int | float | str]:
        """The hyperparameters; `method` is the newer of their two places, and wins."""
        newer, older = self.method.supervised.hyperparameters, self.hyperparameters
        return {
            name: getattr(newer, name) or getattr(older, name) or "auto"
            for name in Hyperparameters.model_fields
        }


@router.post("")
def create(body: Annotated[CreateJob, Depends(json_body(CreateJob))], services: Shared) -> Response:
    models.find(body.model, services)
    _require_file(body.training_file, "training_file", services)
    if body.validation_file is not None:
        _require_file(body.validation_file, "validation_file", services)
    job = services.jobs.create(
        model=models.full_name(body.model),
        training_file=body.training_file,
        validation_file=body.validation_file,
        suffix=body.suffix,
        seed=body.seed,
        hyperparameters=body.asked,
        method={"type": body.method.type},
        metadata=body.metadata,
    )
    services.dispatcher.wake()
    return reply(_job_object(job, services))


@router.get("")
def list_jobs(
    request: Request, services: Shared, after: str | None = None, limit: Limit = 20
) -> Response:
    query = request.query_params
    pairs = {match[1]: query[key] for key in query if (match := _METADATA.fullmatch(key))}
    page = services.jobs.list(after, limit, pairs, without_metadata=query.get("metadata") == "null")
    return listing([_job_object(job, services) for job in page.items], has_more=page.has_more)


@router.get("/{job_id}")
def retrieve(job_id: str, services: Shared) -> Response:
    return reply(_job_object(services.jobs.get(job_id), services))


@router.post("/{job_id}/cancel")
def cancel(job_id: str, services: Shared) -> Response:
    job = move(services.jobs, job_id, "cancelled", finished_at=now(), estimated_finish=None)
    services.jobs.add_event(job_id, "Fine-tuning job was cancelled", key="cancelled")
    services.dispatcher.wake()
    return reply(_job_object(job, services))


@router.get("/{job_id}/events")
def list_events(
    job_id: str, services: Shared, after: str | None = None, limit: Limit = 20
) -> Response:
    page = services.jobs.events(job_id, after, limit)
    return listing([_event_object(event) for event in page.items], has_more=page.has_more)


@router.get("/{job_id}/checkpoints")
def list_checkpoints(
    job_id: str, services: Shared, after: str | None = None, limit: Limit = 10
) -> Response:
    page = services.jobs.checkpoints(job_id, after, limit)
    ids = [checkpoint.id for checkpoint in page.items]
    return listing(
        [_checkpoint_object(checkpoint) for checkpoint in page.items],
        has_more=page.has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)


def _require_file(file_id: str, param: str, services: Services) -> None:
    try:
        purpose = services.files.get(file_id).purpose
    except NotFoundError:
        raise InvalidRequestError(
            f"File '{file_id}' does not exist. Upload it first, with purpose fine-tune.",
            param=param,
        ) from None
    if purpose != "fine-tune":
        raise InvalidRequestError(
            f"A {param.replace('_', ' ')} needs the purpose fine-tune, and '{file_id}' was "
            f"uploaded with {purpose}. Upload it again.",
            param=param,
        )


def _job_object(job: Job, services: Services) -> FineTuningJob:
    error = job.error and {
        "code": job.error.code,
        "message": job.error.message,
        "param": job.error.param,
    }
    return FineTuningJob.model_validate(
        {
            "id": job.id,
            "object": "fine_tuning.job",
            "created_at": job.created_at,
            "finished_at": job.finished_at,
            "status": job.status,
            "model": job.model,
            "fine_tuned_model": job.fine_tuned_model,
            "organization_id": services.settings.organization,
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
            "estimated_finish": job.estimated_finish,
            "error": error,  # null when all is well: the SDK chokes on an object of nulls
            "integrations": list(job.integrations),
            "metadata": job.metadata,
            "user_provided_suffix": job.suffix,
            "served_by": models.served_by(job.model, services),  # ours
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
    # Each metric is optional but never null: what is not known, or no number, is left out.
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
