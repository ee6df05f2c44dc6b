"""States of jobs and batches: which of them may follow which, and the one way to change them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from emojitune.store.jobs import Job, JobStore
from emojitune.store.stores import Stores

ItemT = TypeVar("ItemT")
ItemT_co = TypeVar("ItemT_co", covariant=True)


class _Store(Protocol[ItemT_co]):
    def transition(
        self, id: str, to: str, /, *, sources: Collection[str], **changes: Any
    ) -> ItemT_co: ...


@dataclass(frozen=True, slots=True)
class StateMachine:
    """States, each with those that may follow it."""

    transitions: Mapping[str, frozenset[str]]

    @property
    def terminal(self) -> frozenset[str]:
        """The states that nothing follows."""
        return frozenset(state for state, following in self.transitions.items() if not following)

    @property
    def unfinished(self) -> frozenset[str]:
        """All other states."""
        return frozenset(self.transitions) - self.terminal

    def move(self, store: _Store[ItemT], id: str, to: str, **changes: Any) -> ItemT:
        """Take an item of a store to the state `to`, and set other columns in the same transaction.

        Raises:
            InvalidStateError: `to` may not follow the item's state.
        """
        sources = {state for state, following in self.transitions.items() if to in following}
        return store.transition(id, to, sources=sources, **changes)


JOB = StateMachine(
    {
        "validating_files": frozenset({"queued", "paused", "failed", "cancelled"}),
        "queued": frozenset({"running", "paused", "failed", "cancelled"}),
        # Back to queued when its process died and it waits for its turn again.
        "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
        # Back to where it was paused: only a job with validated files waits in the queue.
        "paused": frozenset({"validating_files", "queued", "cancelled"}),
        "succeeded": frozenset(),
        "failed": frozenset(),
        "cancelled": frozenset(),
    }
)

BATCH = StateMachine(
    {
        "validating": frozenset({"in_progress", "failed", "cancelling"}),
        # Failed when its input file was deleted while no server was running.
        "in_progress": frozenset({"finalizing", "failed", "expired", "cancelling"}),
        "finalizing": frozenset({"completed", "cancelling"}),
        "cancelling": frozenset({"cancelled"}),
        "completed": frozenset(),
        "failed": frozenset(),
        "expired": frozenset(),
        "cancelled": frozenset(),
    }
)

_VALIDATED = "validated"  # key of the event


def queue_validated(stores: Stores, job_id: str) -> Job:
    """Put a job whose files are good into the queue, and report it.

    Raises:
        InvalidStateError: The job no longer waits for validation: it was paused, for example.
    """
    with stores.transaction():
        job = stores.jobs.transition(job_id, "queued", sources=["validating_files"])
        message = "Files validated, moving job to queued state"
        stores.jobs.add_event(job_id, message, key=_VALIDATED)
    return job


def resume(jobs: JobStore, job_id: str) -> Job:
    """Put a paused job back to where it waited.

    Raises:
        InvalidStateError: It is not paused.
    """
    to = "queued" if jobs.event(job_id, _VALIDATED) else "validating_files"
    return jobs.transition(job_id, to, sources=["paused"])
