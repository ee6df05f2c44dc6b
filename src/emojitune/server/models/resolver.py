"""Names of models in requests, resolved to models that are ready to reply.

Knows the catalog, the caller's fine-tuned models and the pool; not how a model is loaded.
"""

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


def load_chat_model(name: str, context: RequestContext) -> InferenceModel:
    """The model that chats under a name in a request; blocks while it is loaded.

    Raises:
        NotFoundError: There is none, or the request named a repository that the hub does not have.
        InvalidRequestError: The repository holds no model that can be loaded.
    """
    return _load(name, resolve(name, context), context)


def load_embedding_model(name: str, context: RequestContext) -> InferenceModel:
    """The model that embeds under a name in a request; see `load_chat_model`."""
    return _load(name, resolve_for_embedding(name, context), context)


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


def _load(name: str, model: FineTunedModel | BaseModel, context: RequestContext) -> InferenceModel:
    try:
        # Several names may mean one base model: it is loaded once, under its own.
        return context.pool.get(model.name)
    except ModelError as error:
        # A model that this server should have is another matter: the client made no mistake.
        if model.name != name or "/" not in name:
            raise
        if error.code == "model_unavailable":
            message = f"The model '{name}' does not exist. {error.message}"
            raise NotFoundError(message, code="model_not_found", param="model") from error
        message = f"The model '{name}' cannot be used here. {error.message}"
        raise InvalidRequestError(message, code="invalid_value", param="model") from error
