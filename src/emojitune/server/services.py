"""What the endpoints share: opened once at the start, handed to each that asks for `Shared`."""

from dataclasses import dataclass
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from emojitune.chat.pool import ModelPool
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.settings import Settings
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore
from emojitune.store.responses import ResponseStore


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the edge. `model_threads` is for loading: it may take a minute, and must
    not hold up the threads in which the short requests run."""

    settings: Settings
    files: FileStore
    jobs: JobStore
    models: ModelStore
    responses: ResponseStore
    pool: ModelPool
    dispatcher: Dispatcher
    model_threads: CapacityLimiter


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Shared = Annotated[Services, Depends(_services)]
