from pathlib import Path

import pytest

from emojitune.store.database import Database
from emojitune.store.files import FileStore
from emojitune.store.models import ModelStore


@pytest.fixture
def files(database: Database, tmp_path: Path) -> FileStore:
    return FileStore(database, "default", tmp_path / "home" / "files")


@pytest.fixture
def models(database: Database) -> ModelStore:
    return ModelStore(database, "default")
