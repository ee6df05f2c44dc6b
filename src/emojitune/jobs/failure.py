"""How a job fails: with an error that its owner can act on, in its row and among its events.

Also after crashes: a job whose worker crashed is queued again, unless that happens again and again.
Crashes are counted among the job's events, from the last step reported: the count outlives the
server, and a job that gets further each time is never given up.
"""

import signal
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from emojitune.errors import ConversationError, EmojituneError, InvalidStateError, TrainingError
from emojitune.jobs import states
from emojitune.store.database import DatabaseUnavailableError
from emojitune.store.jobs import Job, JobError
from emojitune.store.stores import Stores

MAX_CRASHES = 3  # without a new step in between
DISK_FULL = 73  # exit status of a worker that could not write: sysexits' EX_CANTCREAT
_CRASH_KEY = "death-"  # of events; databases have it since the first release


@contextmanager
def fail_on_error(job: Job, stores: Stores) -> Iterator[None]:
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
    """Fail a job with an error's code, message and param, and report it as an event.

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


@dataclass(frozen=True, slots=True)
class Crash:
    """The unexpected end of a worker.

    Attributes:
        worker: Its name.
        status: Its exit status, negative for a signal, as `subprocess` has it.
        out_of_memory: Whether the system killed it to free memory.
        log: The file with the worker's output.
    """

    worker: str
    status: int
    out_of_memory: bool
    log: Path


def recover(job: Job, stores: Stores, crash: Crash) -> None:
    """Report a crash, and put the job back into the queue; or fail it after too many."""
    count = stores.jobs.events_since_step(job.id, _CRASH_KEY) + 1
    if count >= MAX_CRASHES and job.status != "paused":
        fail(job, stores, _given_up(count, crash))
        return
    stores.jobs.add_event(
        job.id,
        f"The job's process ended unexpectedly ({_cause(crash)}); it resumes from its last "
        "checkpoint",
        level="warn",
        key=_CRASH_KEY + crash.worker,
    )
    if job.status == "running":
        states.JOB.move(stores.jobs, job.id, "queued")


def oom_kills() -> int:
    """How many processes Linux has killed on this machine to free memory; 0 on other systems."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _given_up(count: int, crash: Crash) -> TrainingError:
    if crash.out_of_memory:
        return TrainingError(
            f"The job's process was ended {count} times without a step in between, and the system "
            "said why: it ran out of memory. Free some, use a smaller batch_size or shorter "
            "examples, and create the job again.",
            code="out_of_memory",
        )
    if crash.status == DISK_FULL:
        return TrainingError(
            f"The disk is full: {count} times without a step in between the job's process could "
            "not write. What was there before is unharmed. Free some space and create the job "
            "again; `emojitune doctor` lists what can go.",
            code="disk_full",
        )
    return TrainingError(
        f"The job's process ended {count} times without a step in between ({_cause(crash)}). The "
        f"last lines of {crash.log} may say why. If it was killed, most likely memory ran out: "
        "free some, or use a smaller batch_size. Then create the job again.",
        code="server_error",
    )


def _cause(crash: Crash) -> str:
    if crash.out_of_memory:
        return "the system ran out of memory"
    if crash.status == DISK_FULL:
        return "the disk is full"
    if crash.status < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-crash.status).name}"
    return f"status {crash.status}"


def _is_out_of_memory(error: Exception) -> bool:
    """By name and words: the classes are torch's, and its allocator for processors has none."""
    names = ("MemoryError", "OutOfMemoryError")
    return type(error).__name__ in names or "can't allocate memory" in str(error)


def _out_of_memory(error: Exception) -> TrainingError:
    first_line = (str(error).splitlines() or [type(error).__name__])[0]
    return TrainingError(
        f"The job ran out of memory ({textwrap.shorten(first_line, 200)}). Use a smaller "
        "batch_size, shorten the longest examples, or free some memory, and create the job again.",
        code="out_of_memory",
    )
