"""What an endpoint works with: handed to each that asks for `Shared`, for its caller's project.

Its stores see that project alone, so no endpoint has to think of it, and none can forget to.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from emojitune.inference.model_pool import ModelPool
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.server.batches.runner import BatchRunner
from emojitune.settings import Settings
from emojitune.store.batches import BatchStore
from emojitune.store.chat_completions import ChatCompletionStore
from emojitune.store.files import FileStore
from emojitune.store.idempotency import IdempotencyStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore
from emojitune.store.permissions import PermissionStore
from emojitune.store.responses import ResponseStore
from emojitune.store.scope import Project
from emojitune.store.stores import Stores
from emojitune.store.uploads import UploadStore


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The rooms behind the edge: a project's stores, and what serves all. `model_threads` is for
    loading: it may take a minute, and must not hold up the threads of the short requests."""

    settings: Settings
    project: Project
    stores: Stores
    files: FileStore
    uploads: UploadStore
    jobs: JobStore
    batches: BatchStore
    models: ModelStore
    chat_completions: ChatCompletionStore
    idempotency: IdempotencyStore
    permissions: PermissionStore
    responses: ResponseStore
    pool: ModelPool
    dispatcher: Dispatcher
    batch_runner: BatchRunner
    load_limiter: CapacityLimiter


ContextFor = Callable[[Project], RequestContext]


async def _request_context(request: Request) -> RequestContext:
    # Whoever came past the key check has a caller; without one there is nothing to serve.
    context_for: ContextFor = request.app.state.context_for
    return context_for(request.scope["caller"].project)


Context = Annotated[RequestContext, Depends(_request_context)]
