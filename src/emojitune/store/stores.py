"""What a job reads and writes, opened together."""

from dataclasses import dataclass

from emojitune.settings import Settings
from emojitune.store.database import Database, open_database
from emojitune.store.files import FileStore
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseStore
from emojitune.store.models import ModelStore
from emojitune.store.scope import Project


@dataclass(frozen=True, slots=True)
class Stores:
    """Files, jobs and models, a project's or those of all; and the leases on all jobs."""

    files: FileStore
    jobs: JobStore
    models: ModelStore
    leases: LeaseStore


def stores_of(database: Database, project: Project, settings: Settings) -> Stores:
    """The stores over this database."""
    return Stores(
        files=FileStore(database, project, settings.files),
        jobs=JobStore(database, project),
        models=ModelStore(database, project),
        leases=LeaseStore(database),
    )


def open_stores(settings: Settings, project: Project) -> Stores:
    """A project's stores in a home folder."""
    return stores_of(open_database(settings.home), project, settings)
