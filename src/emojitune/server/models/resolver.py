"""Names of models in requests, resolved to models that are ready to reply.

Knows the catalog, the caller's fine-tuned models and the pool; not how a model is loaded.
"""

import asyncio
from functools import partial

from anyio import to_thread

from emojitune.errors import InvalidRequestError, ModelError, NotFoundError
from emojitune.inference.types import InferenceModel
from emojitune.models.catalog import (
    EMBEDDING_MODELS,
    BaseModel,
    find_base,
    hosted_snapshot,
    is_fine_tuned,
    resolve_base,
)
from emojitune.server.context import RequestContext
from emojitune.store.models import FineTunedModel


def resolve(name: str, context: RequestContext) -> FineTunedModel | BaseModel:
    """The model that chats and can be tuned under a name in a request.

    Raises:
        NotFoundError: There is none; the message lists the models that there are.
    """
    if is_fine_tuned(name):
        return context.stores.models.get(name)
    return resolve_base(name, context.settings)


def resolve_for_embedding(name: str, context: RequestContext) -> FineTunedModel | BaseModel:
    """The model that embeds under a name: any chat model, or a hosted embedding model's stand-in.

    Raises:
        NotFoundError: There is none.
    """
    if name in EMBEDDING_MODELS:
        return find_base(context.settings.base_model)
    return resolve(name, context)


async def get_chat_model(name: str, context: RequestContext) -> InferenceModel:
    """The model that chats under a name in a request, loaded if necessary.

    Raises:
        NotFoundError: There is none, or the request named a repository that the hub does not have.
        InvalidRequestError: The repository holds no model that can be loaded.
    """
    return await _get(name, await to_thread.run_sync(resolve, name, context), context)


async def get_embedding_model(name: str, context: RequestContext) -> InferenceModel:
    """The model that embeds under a name in a request; see `get_chat_model`."""
    model = await to_thread.run_sync(resolve_for_embedding, name, context)
    return await _get(name, model, context)


def serving_base(name: str, context: RequestContext) -> str | None:
    """The base model that really runs under `name`; None where a fine-tuned one was deleted."""
    try:
        model = resolve_for_embedding(name, context)
    except NotFoundError:
        return None
    return model.base if isinstance(model, FineTunedModel) else model.name


def snapshot_name(name: str) -> str:
    """`name` as jobs and replies show it: the dated one for a hosted alias."""
    return hosted_snapshot(name) or name


async def _get(
    name: str, model: FineTunedModel | BaseModel, context: RequestContext
) -> InferenceModel:
    try:
        # Several names may mean one base model: it is loaded once, under its own. Only the first
        # request for it takes a thread.
        loaded = context.pool.peek(model.name)
        if loaded is not None:
            return await asyncio.shield(asyncio.wrap_future(loaded))
        return await context.threads.loading.run(
            context.project, partial(context.pool.get, model.name)
        )
    except ModelError as error:
        # A model that this server should have is another matter: the client made no mistake.
        if model.name != name or "/" not in name:
            raise
        if error.code == "model_unavailable":
            message = f"The model '{name}' does not exist. {error.message}"
            raise NotFoundError(message, code="model_not_found", param="model") from error
        message = f"The model '{name}' cannot be used here. {error.message}"
        raise InvalidRequestError(message, code="invalid_value", param="model") from error
