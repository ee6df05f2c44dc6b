from collections.abc import Iterator
from pathlib import Path

import pytest
from clocks import ManualClock

from emojitune.store.database import Database, open_database
from emojitune.store.files import FileStore
from emojitune.store.models import ModelStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def database(tmp_path: Path, clock: ManualClock) -> Iterator[Database]:
    """A database whose clock stands still."""
    opened = open_database(tmp_path / "home", clock)
    yield opened
    opened.close()


@pytest.fixture
def files(database: Database, tmp_path: Path) -> FileStore:
    return FileStore(database, "default", tmp_path / "home" / "files")


@pytest.fixture
def models(database: Database) -> ModelStore:
    return ModelStore(database, "default")
