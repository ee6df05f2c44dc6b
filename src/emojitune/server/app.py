"""The application: all endpoints, behind the key, over services that it opens and closes."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from anyio import CapacityLimiter
from fastapi import FastAPI

from emojitune.chat.pool import ModelPool
from emojitune.chat.reply import Replier
from emojitune.jobs.dispatcher import Dispatcher
from emojitune.server import auth, chat, docs_page, errors, files, fine_tuning, models
from emojitune.server.envelope import Envelope
from emojitune.server.loading import model_loader
from emojitune.server.services import Services
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore

_LOADING_AT_ONCE = 8


def create_app(
    settings: Settings,
    *,
    dispatcher: Dispatcher | None = None,
    load_model: Callable[[str], Replier] | None = None,
) -> FastAPI:
    """OpenAI's API over the home folder of `settings`.

    Args:
        dispatcher: Who runs the jobs; by default one that starts a process for each.
        load_model: From a base or fine-tuned model's name to the model; by default from the disk.
    """
    app = FastAPI(
        lifespan=_lifespan(settings, dispatcher or Dispatcher(settings), load_model),
        redirect_slashes=False,
        openapi_url=None,  # not FastAPI's: see openapi.py
    )
    for router in (files.router, fine_tuning.router, models.router, chat.router):
        app.include_router(router)
    app.include_router(docs_page.router)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    errors.install(app)
    # The last one added is the outermost.
    app.add_middleware(auth.KeyCheck, key=auth.server_key(settings))
    app.add_middleware(Envelope, organization=settings.organization)
    return app


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _lifespan(
    settings: Settings, dispatcher: Dispatcher, load_model: Callable[[str], Replier] | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = open_database(settings.home)
        tuned = ModelStore(database)
        app.state.services = Services(
            settings=settings,
            files=FileStore(database, settings.files),
            jobs=JobStore(database),
            models=tuned,
            pool=ModelPool(load_model or model_loader(settings, tuned)),
            dispatcher=dispatcher,
            model_threads=CapacityLimiter(_LOADING_AT_ONCE),
        )
        dispatcher.start()
        try:
            yield
        finally:
            dispatcher.stop()
            database.close()

    return lifespan
