"""What a job reads and writes, opened together."""

from dataclasses import dataclass

from emojitune.settings import Settings
from emojitune.store.database import Database, open_database
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.models import ModelStore


@dataclass(frozen=True, slots=True)
class Stores:
    """Files, jobs and models of one home folder."""

    files: FileStore
    jobs: JobStore
    models: ModelStore


def stores_of(database: Database, settings: Settings) -> Stores:
    """The stores over this database."""
    return Stores(
        files=FileStore(database, settings.files),
        jobs=JobStore(database),
        models=ModelStore(database),
    )


def open_stores(settings: Settings) -> Stores:
    """The stores of a home folder."""
    return stores_of(open_database(settings.home), settings)
