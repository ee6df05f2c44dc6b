"""A job's states, which of them may follow which, and the one way to change them."""

from typing import Any

from emojitune.store.jobs import FINISHED, Job, JobStore

TERMINAL = frozenset(FINISHED)

TRANSITIONS: dict[str, frozenset[str]] = {
    "validating_files": frozenset({"queued", "failed", "cancelled"}),
    "queued": frozenset({"running", "paused", "failed", "cancelled"}),
    # Back to queued when its process died and it waits for its turn again.
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
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
