"""What the endpoints share: opened once at the start, handed to each that asks for `Shared`."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from emojitune.chat.pool import ModelPool
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.server.batch_runner import BatchRunner
from emojitune.settings import Settings
from emojitune.store.batches import BatchStore
from emojitune.store.completions import CompletionStore
from emojitune.store.creations import CreationStore
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore
from emojitune.store.permissions import PermissionStore
from emojitune.store.responses import ResponseStore
from emojitune.store.uploads import UploadStore


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the edge. `model_threads` is for loading: it may take a minute, and must
    not hold up the threads in which the short requests run."""

    settings: Settings
    files: FileStore
    uploads: UploadStore
    jobs: JobStore
    batches: BatchStore
    models: ModelStore
    completions: CompletionStore
    creations: CreationStore
    permissions: PermissionStore
    responses: ResponseStore
    pool: ModelPool
    dispatcher: Dispatcher
    batch_runner: BatchRunner
    model_threads: CapacityLimiter


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Shared = Annotated[Services, Depends(_services)]
