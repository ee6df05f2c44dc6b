"""How a job fails: with an error that its owner can act on, in its row and in its story at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from emojitune.errors import EmojituneError, InvalidStateError
from emojitune.jobs import states
from emojitune.jobs.stores import Stores
from emojitune.store.database import DatabaseUnavailableError
from emojitune.store.jobs import Job, JobError


@contextmanager
def failing(job: Job, stores: Stores) -> Iterator[None]:
    """Turn an error that a user can act on into a failed job."""
    try:
        yield
    except (InvalidStateError, DatabaseUnavailableError):
        raise  # cancelled meanwhile, another worker's, or a matter of time: no fault of the job
    except EmojituneError as error:
        fail(job, stores, error)


def fail(job: Job, stores: Stores, error: EmojituneError) -> None:
    """Fail a job with an error's code, message and param, and tell it as an event.

    As on the hosted API, a job whose files were refused never began, and so has no finish.
    """
    code = error.code or "server_error"
    with stores.jobs.together():
        began = stores.jobs.get(job.id).status != "validating_files"
        states.move(
            stores.jobs,
            job.id,
            "failed",
            error=JobError(code, error.message, error.param),
            finished_at=int(time.time()) if began else None,
            estimated_finish=None,
        )
        stores.jobs.add_event(job.id, error.message, level="error", key="failed")
