"""What becomes of a job whose worker died: it goes on, unless it dies again and again.

Deaths are counted in the job's own story, from the last step that it told: they outlive the server,
and a job that gets further each time is never given up.
"""

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from emojitune.errors import TrainingError
from emojitune.jobs import states
from emojitune.jobs.failure import fail
from emojitune.store.jobs import Job
from emojitune.store.stores import Stores

MOST_DEATHS = 3  # without a new step in between
DISK_FULL = 73  # the status of a worker that ended for that: sysexits' EX_CANTCREAT
_KEY = "death-"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended: its exit status, negative for a signal, as `subprocess` has it."""

    worker: str
    status: int
    for_memory: bool
    log: Path


def note(job: Job, stores: Stores, death: Death) -> None:
    """Tell a death, and put the job back into the queue, or fail it."""
    count = stores.jobs.events_since_step(job.id, _KEY) + 1
    if count >= MOST_DEATHS and job.status != "paused":
        fail(job, stores, _given_up(count, death))
        return
    stores.jobs.add_event(
        job.id,
        f"The job's process ended unexpectedly ({_how(death)}); it goes on from its last "
        "checkpoint",
        level="warn",
        key=_KEY + death.worker,
    )
    if job.status == "running":
        states.JOB.move(stores.jobs, job.id, "queued")


def oom_kills() -> int:
    """How many processes of this machine Linux has ended for want of memory; 0 elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def _given_up(count: int, death: Death) -> TrainingError:
    if death.for_memory:
        return TrainingError(
            f"The job's process was ended {count} times without a step in between, and the system "
            "said why: it ran out of memory. Free some, use a smaller batch_size or shorter "
            "examples, and create the job again.",
            code="out_of_memory",
        )
    if death.status == DISK_FULL:
        return TrainingError(
            f"The disk is full: {count} times without a step in between the job's process could "
            "not write. What was there before is unharmed. Free some space and create the job "
            "again; `emojitune doctor` lists what can go.",
            code="disk_full",
        )
    return TrainingError(
        f"The job's process ended {count} times without a step in between ({_how(death)}). The "
        f"last lines of {death.log} may say why. If it was killed, most likely memory ran out: "
        "free some, or use a smaller batch_size. Then create the job again.",
        code="server_error",
    )


def _how(death: Death) -> str:
    if death.for_memory:
        return "the system ran out of memory"
    if death.status == DISK_FULL:
        return "the disk is full"
    if death.status < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-death.status).name}"
    return f"status {death.status}"
