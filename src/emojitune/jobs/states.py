"""A job's states, which of them may follow which, and the one way to change them."""

from typing import Any

from emojitune.store.jobs import FINISHED, Job, JobStore

TERMINAL = frozenset(FINISHED)
_VALIDATED = "validated"

TRANSITIONS: dict[str, frozenset[str]] = {
    "validating_files": frozenset({"queued", "paused", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    # Back to queued when its process died and it waits for its turn again.
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    # To where it was paused: only a job whose files were validated waits in the queue.
    "paused": frozenset({"validating_files", "queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


def move(jobs: JobStore, job_id: str, to: str, **changes: Any) -> Job:
    """Take a job to the state `to`, setting other columns in the same moment.

    Raises:
        InvalidStateError: `to` may not follow the state the job is in.
    """
    sources = {state for state, following in TRANSITIONS.items() if to in following}
    return jobs.transition(job_id, to, sources=sources, **changes)


def validated(jobs: JobStore, job_id: str) -> Job:
    """Put a job into the queue whose files are good, and tell it.

    Raises:
        InvalidStateError: It does not wait for that any more: it was paused, say.
    """
    with jobs.together():
        job = jobs.transition(job_id, "queued", sources=["validating_files"])
        jobs.add_event(job_id, "Files validated, moving job to queued state", key=_VALIDATED)
    return job


def resume(jobs: JobStore, job_id: str) -> Job:
    """Put a paused job back to where it waited.

    Raises:
        InvalidStateError: It is not paused.
    """
    to = "queued" if jobs.event(job_id, _VALIDATED) else "validating_files"
    return jobs.transition(job_id, to, sources=["paused"])
