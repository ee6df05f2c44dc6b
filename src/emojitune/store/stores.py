"""The stores of a project, in one value: what jobs and the server's endpoints work with."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from emojitune.settings import Settings
from emojitune.store.batches import BatchStore
from emojitune.store.chat_completions import ChatCompletionStore
from emojitune.store.database import Database, open_database
from emojitune.store.files import FileStore
from emojitune.store.idempotency import IdempotencyStore
from emojitune.store.jobs import JobStore
from emojitune.store.leases import LeaseStore
from emojitune.store.models import ModelStore
from emojitune.store.permissions import PermissionStore
from emojitune.store.responses import ResponseStore
from emojitune.store.scope import Project
from emojitune.store.uploads import UploadStore


@dataclass(frozen=True, slots=True)
class Stores:
    """The stores of one project, or of all; `leases` cover the jobs of every project."""

    database: Database
    files: FileStore
    uploads: UploadStore
    jobs: JobStore
    leases: LeaseStore
    models: ModelStore
    batches: BatchStore
    chat_completions: ChatCompletionStore
    responses: ResponseStore
    idempotency: IdempotencyStore
    permissions: PermissionStore

    def transaction(self) -> AbstractContextManager[object]:
        """A block whose writes, by whichever of the stores, are kept together or not at all."""
        return self.database.transaction()


def stores_of(database: Database, project: Project, settings: Settings) -> Stores:
    """A project's stores over a database, with its files in the folders of `settings`."""
    files = FileStore(database, project, settings.files)
    return Stores(
        database=database,
        files=files,
        uploads=UploadStore(database, project, settings.upload_parts, files),
        jobs=JobStore(database, project),
        leases=LeaseStore(database),
        models=ModelStore(database, project),
        batches=BatchStore(database, project),
        chat_completions=ChatCompletionStore(database, project),
        responses=ResponseStore(database, project),
        idempotency=IdempotencyStore(database, project),
        permissions=PermissionStore(database, project),
    )


def open_stores(settings: Settings, project: Project) -> Stores:
    """A project's stores in the home folder of `settings`."""
    return stores_of(open_database(settings.home), project, settings)
