from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from clocks import OffsetClock
from fakes import FakeChatModel, FakeDispatcher
from openai import OpenAI
from schema_middleware import SchemaCheckMiddleware
from servers import KEY, RunningServer, serving

from emojitune.server.app import create_app
from emojitune.settings import Settings


@pytest.fixture(autouse=True)
def _responses_match_schemas() -> Iterator[None]:
    """Fail any test during which a response differed from schemas.py."""
    yield
    violations = list(SchemaCheckMiddleware.violations)
    SchemaCheckMiddleware.violations.clear()
    assert violations == []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server per module, with an empty home at its start."""
    folder: Path = tmp_path_factory.mktemp("server")
    settings = Settings(
        home=folder / "home", cache=folder / "cache", api_key=KEY, max_file_bytes=1_000_000
    )
    dispatcher, chat_model, clock = FakeDispatcher(), FakeChatModel(), OffsetClock()
    app = create_app(settings, dispatcher=dispatcher, load_model=lambda *_: chat_model, clock=clock)
    with serving(app) as url:
        yield RunningServer(url, app, dispatcher, chat_model, clock)


@pytest.fixture(scope="module")
def url(server: RunningServer) -> str:
    """The base URL of the clients; a module with a server of its own overrides it."""
    return server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    """The official client at its strictest."""
    with OpenAI(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as opened:
        yield opened


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx2.Client]:
    """A plain HTTP client, for requests that the official one would not send."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=60) as opened:
        yield opened
