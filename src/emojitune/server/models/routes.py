"""Models: list, retrieve, delete."""

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, HTTPException, Response
from openai.types import Model, ModelDeleted

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.jobs.publish import delete_model
from emojitune.models.catalog import (
    CATALOG,
    EMBEDDING_MODELS,
    HOSTED_MODELS,
    BaseModel,
)
from emojitune.models.download import exists
from emojitune.server.context import Context, RequestContext
from emojitune.server.http.json_responses import json_response, list_response
from emojitune.server.models.resolver import resolve_for_embedding
from emojitune.store.models import FineTunedModel

router = APIRouter(prefix="/v1/models")


@router.get("")
def list_models(context: Context) -> Response:
    """List the base models, their hosted aliases, and the fine-tuned models."""
    base = [_base_object(name, context) for name in (*CATALOG, *HOSTED_MODELS, *EMBEDDING_MODELS)]
    # Checkpoints answer by name, but are not listed: as on the hosted API.
    tuned = [_tuned_object(model) for model in context.stores.models.list() if model.step is None]
    return list_response([*base, *tuned])


def _nonempty(name: str) -> str:
    if not name:  # a `path` may be empty, and `/v1/models/` names no model
        raise HTTPException(404)
    return name


_Name = Annotated[str, Depends(_nonempty)]


# `path`, because the SDK sends `org/name` as `org%2Fname`, which is decoded before routing.
@router.get("/{name:path}")
async def retrieve(name: _Name, context: Context) -> Response:
    """Retrieve a model, a checkpoint too."""
    model = await _resolve_existing(name, context)
    if isinstance(model, FineTunedModel):
        return json_response(_tuned_object(model))
    return json_response(_base_object(name, context))


@router.delete("/{name:path}")
async def delete(name: _Name, context: Context) -> Response:
    """Delete a fine-tuned model or a checkpoint, with its adapter."""
    model = await _resolve_existing(name, context)
    if not isinstance(model, FineTunedModel):
        raise InvalidRequestError(
            f"Only fine-tuned models can be deleted, and {name} is a base model.", param="model"
        )
    await to_thread.run_sync(delete_model, name, context.stores.models, context.settings)
    context.pool.forget(name)
    return json_response(ModelDeleted(id=name, object="model", deleted=True))


async def _resolve_existing(name: str, context: RequestContext) -> FineTunedModel | BaseModel:
    """The model under a name; a repository that only the request names is looked up on the hub.

    Raises:
        NotFoundError: There is none, or the hub does not say so.
    """
    model = await to_thread.run_sync(resolve_for_embedding, name, context)
    if isinstance(model, FineTunedModel) or model.name != name or name in CATALOG:
        return model
    exists_there = partial(exists, model, context.settings)
    if not await context.threads.asking_hub.run(context.project, exists_there):
        raise NotFoundError(
            f"The model '{name}' does not exist: no base model of this name is in this server's "
            "cache, and the Hugging Face hub gave none. Look at the list of models, or check the "
            "id and the network.",
            code="model_not_found",
            param="model",
        )
    return model


def _base_object(name: str, context: RequestContext) -> Model:
    base, hosted = resolve_for_embedding(name, context), HOSTED_MODELS.get(name)
    assert isinstance(base, BaseModel)
    if name in EMBEDDING_MODELS:
        created = EMBEDDING_MODELS[name]
    else:
        created = hosted.created if hosted else base.created
    return _object(
        name,
        created=created,
        owner="openai" if hosted or name in EMBEDDING_MODELS else "system",
        served_by=base.name,
        shutdown_date=hosted.shutdown_date.isoformat() if hosted else None,
    )


def _tuned_object(model: FineTunedModel) -> Model:
    owner = model.name.split(":")[2]
    return _object(
        model.name,
        created=model.created_at,
        owner=owner,
        served_by=model.base,
        system_prompt=model.system_prompt,
    )


def _object(
    name: str,
    *,
    created: int,
    owner: str,
    served_by: str,
    shutdown_date: str | None = None,
    system_prompt: str | None = "",
) -> Model:
    return Model.model_validate(
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": owner,
            "shutdown_date": shutdown_date,
            "served_by": served_by,  # ours: which model really answers under this name
            "system_prompt": system_prompt,  # ours: the one that it was trained with
        }
    )
