"""The request context: the stores of the caller's project, and what all requests share.

An endpoint declares a parameter of the type `Context` and receives it. Its stores see the caller's
project alone, so no endpoint has to think of the project, and none can forget it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request

from emojitune.inference.model_pool import ModelPool
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.server.threads import FairThreads
from emojitune.settings import Settings
from emojitune.store.scope import Project
from emojitune.store.stores import Stores


class BatchControl(Protocol):
    """The part of the batch runner that endpoints use, from any thread."""

    def wake(self) -> None:
        """Look for new batches now."""

    def interrupt(self, batch_id: str) -> None:
        """Stop running a batch that is being cancelled."""


class WorkerThreads:
    """Threads by how long they may take, so that work which takes long delays no other.

    Of each kind, a project may have half; of those that start replies a quarter, because a schema
    takes a core meanwhile.
    """

    def __init__(self) -> None:
        self.starting = FairThreads(8, each=2)  # renders a prompt, prepares its labels or schema
        self.loading = FairThreads(4, each=2)  # waits for a model: for a disk, or for a hub
        self.asking_hub = FairThreads(4, each=2)  # waits for a hub's short answer
        self.embedding = FairThreads(4, each=2)  # waits for the engine
        self.grading = FairThreads(2, each=1)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """A project's stores, and what serves all projects."""

    settings: Settings
    project: Project
    stores: Stores
    pool: ModelPool
    dispatcher: Dispatcher
    batch_runner: BatchControl
    threads: WorkerThreads


ContextFor = Callable[[Project], RequestContext]


async def _request_context(request: Request) -> RequestContext:
    # Every request that passed the API key middleware has a caller.
    context_for: ContextFor = request.app.state.context_for
    return context_for(request.scope["caller"].project)


Context = Annotated[RequestContext, Depends(_request_context)]
