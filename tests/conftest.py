"""Fixtures of all tests: a home folder of their own, and no key of the person who runs them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_api import FakeApi, running_fake_api

from emojitune.models.torch_environment import import_libraries
from emojitune.store.database import Database, open_database
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseStore


def pytest_collectstart() -> None:
    """Import torch before any test module does, but not in the controller process of xdist."""
    import_libraries()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker that started one last would delay the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _no_real_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMOJITUNE_HOME", str(tmp_path / "home"))
    for name in (
        *("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY"),
        *("OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_umask() -> Iterator[None]:
    """A umask of 0, so that new files are open to everybody unless their mode is set."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database, "default")


@pytest.fixture
def leases(database: Database) -> LeaseStore:
    return LeaseStore(database)


@pytest.fixture
def fake_api() -> Iterator[FakeApi]:
    with running_fake_api() as api:
        yield api


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model folder that loads in milliseconds."""
    from tiny_model import make_tiny_base

    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def tiny(tiny_base: Path) -> Any:
    """The tiny model as a LoadedHF, fresh: a test may train it."""
    from tiny_model import load_tiny

    return load_tiny(tiny_base)
