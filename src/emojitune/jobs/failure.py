"""How a job fails: with an error that its owner can act on, in its row and in its story at once."""

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from emojitune.errors import ConversationError, EmojituneError, InvalidStateError, TrainingError
from emojitune.jobs import states
from emojitune.store.database import DatabaseUnavailableError
from emojitune.store.jobs import Job, JobError
from emojitune.store.stores import Stores


@contextmanager
def failing(job: Job, stores: Stores) -> Iterator[None]:
    """Turn an error that a user can act on into a failed job."""
    try:
        yield
    except (InvalidStateError, DatabaseUnavailableError):
        raise  # cancelled meanwhile, another worker's, or a matter of time: no fault of the job
    except EmojituneError as error:
        fail(job, stores, error)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        fail(job, stores, _out_of_memory(error))


def fail(job: Job, stores: Stores, error: EmojituneError) -> None:
    """Fail a job with an error's code, message and param, and tell it as an event.

    As on the hosted API, a job whose files were refused never began, and so has no finish.
    """
    code = error.code or "server_error"
    param = "messages" if isinstance(error, ConversationError) else error.param
    with stores.transaction():
        began = stores.jobs.get(job.id).status != "validating_files"
        states.JOB.move(
            stores.jobs,
            job.id,
            "failed",
            error=JobError(code, error.message, param),
            finished_at=int(time.time()) if began else None,
            estimated_finish=None,
        )
        stores.jobs.add_event(job.id, error.message, level="error", key="failed")


def _is_out_of_memory(error: Exception) -> bool:
    """By name and words: the classes are torch's, and the allocator of processors has none."""
    names = ("MemoryError", "OutOfMemoryError")
    return type(error).__name__ in names or "can't allocate memory" in str(error)


def _out_of_memory(error: Exception) -> TrainingError:
    said = str(error).splitlines()[:1] or [type(error).__name__]
    return TrainingError(
        f"The job ran out of memory ({textwrap.shorten(said[0], 200)}). Use a smaller batch_size, "
        "shorten the longest examples, or free some memory, and create the job again.",
        code="out_of_memory",
    )
