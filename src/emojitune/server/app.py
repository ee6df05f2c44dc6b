"""The application: all endpoints and middlewares, over stores that it opens and closes."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache, partial

from fastapi import FastAPI

from emojitune.inference.model_pool import LoadModel, ModelPool
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.server import embeddings
from emojitune.server.batches import routes as batches
from emojitune.server.batches.runner import BatchRunner
from emojitune.server.chat import routes as chat
from emojitune.server.chat import stored
from emojitune.server.context import ContextFor, RequestContext, WorkerThreads
from emojitune.server.docs import page
from emojitune.server.edge import auth
from emojitune.server.edge.access_log import AccessLogMiddleware
from emojitune.server.edge.rate_limits import HeaderLimitMiddleware, RateLimitMiddleware
from emojitune.server.edge.unread_bodies import UnreadBodyMiddleware
from emojitune.server.files import routes as files
from emojitune.server.files import uploads
from emojitune.server.fine_tuning import graders, permissions
from emojitune.server.fine_tuning import routes as fine_tuning
from emojitune.server.http import asgi_client, errors
from emojitune.server.models import routes as models
from emojitune.server.models.loading import capacity, model_loader
from emojitune.server.responses import routes as responses
from emojitune.server.threads import FairThreads
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.keys import KeyStore
from emojitune.store.scope import EVERY_PROJECT, Project
from emojitune.store.stores import Stores, stores_of

StoresFor = Callable[[Project], Stores]

_ROUTERS = (
    files.router,
    uploads.router,
    fine_tuning.router,
    permissions.router,
    graders.router,
    models.router,
    chat.router,
    stored.router,
    responses.router,
    embeddings.router,
    batches.router,
)


def create_app(
    settings: Settings,
    *,
    dispatcher: Dispatcher | None = None,
    load_model: LoadModel | None = None,
    clock: Callable[[], float] = time.time,
) -> FastAPI:
    """The ASGI application: OpenAI's API over the home folder of `settings`.

    Args:
        dispatcher: Runs the jobs; by default in a process each.
        load_model: Loads a base or fine-tuned model by its name for the pool; by default from the
            disk.
        clock: The time by which objects are stamped, and expire.
    """
    app = FastAPI(
        lifespan=_lifespan(settings, dispatcher or Dispatcher(settings), load_model, clock),
        redirect_slashes=False,
        openapi_url=None,  # ours is made by docs/openapi.py
    )
    for router in _ROUTERS:
        app.include_router(router)
    app.include_router(page.router)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    errors.register_handlers(app)
    # The middleware added last is the outermost.
    app.add_middleware(RateLimitMiddleware, settings=settings)
    app.add_middleware(auth.ApiKeyMiddleware, key=auth.server_key(settings))
    app.add_middleware(HeaderLimitMiddleware)
    app.add_middleware(UnreadBodyMiddleware)
    app.add_middleware(
        AccessLogMiddleware, organization=settings.organization, log_content=settings.log_content
    )
    return app


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _lifespan(
    settings: Settings,
    dispatcher: Dispatcher,
    load_model: LoadModel | None,
    clock: Callable[[], float],
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings.home, clock)

        @cache
        def stores_for(project: Project) -> Stores:
            return stores_of(database, project, settings)

        all_projects = stores_for(EVERY_PROJECT)
        post = partial(asgi_client.post, app)
        batch_runner = BatchRunner(
            all_projects.batches, lambda project: stores_for(project).files, post
        )
        app.state.context_for = _context_factory(
            settings, stores_for, dispatcher, batch_runner, load_model
        )
        app.state.parsing_threads = FairThreads(1, each=1)  # see json_bodies.py
        app.state.keys = KeyStore(database)
        all_projects.files.sweep()
        all_projects.uploads.sweep()
        dispatcher.start()
        batch_runner.start()
        try:
            yield
        finally:
            await batch_runner.stop()
            dispatcher.stop()
            database.close()

    return lifespan


def _context_factory(
    settings: Settings,
    stores_for: StoresFor,
    dispatcher: Dispatcher,
    batch_runner: BatchRunner,
    load_model: LoadModel | None,
) -> ContextFor:
    load = load_model or model_loader(settings, stores_for(EVERY_PROJECT).models)
    pool = ModelPool(load, capacity=cache(partial(capacity, settings)))
    threads = WorkerThreads()

    def context_for(project: Project) -> RequestContext:
        return RequestContext(
            settings=settings,
            project=project,
            stores=stores_for(project),
            pool=pool,
            dispatcher=dispatcher,
            batch_runner=batch_runner,
            threads=threads,
        )

    return cache(context_for)
