from collections.abc import Iterator
from pathlib import Path

import pytest

from emojitune.store.database import Database, open_database
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseStore
from emojitune.store.models import ModelStore


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def files(database: Database, tmp_path: Path) -> FileStore:
    return FileStore(database, "default", tmp_path / "home" / "files")


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database, "default")


@pytest.fixture
def leases(database: Database) -> LeaseStore:
    return LeaseStore(database)


@pytest.fixture
def models(database: Database) -> ModelStore:
    return ModelStore(database, "default")
