"""A batch's states, which of them may follow which, and the one way to change them."""

from typing import Any

from emojitune.store.batches import Batch, BatchStore

TRANSITIONS: dict[str, frozenset[str]] = {
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


def move(batches: BatchStore, batch_id: str, to: str, **changes: Any) -> Batch:
    """Take a batch to the state `to`, setting other columns in the same moment.

    Raises:
        InvalidStateError: `to` may not follow the state the batch is in.
    """
    sources = {state for state, following in TRANSITIONS.items() if to in following}
    return batches.transition(batch_id, to, sources=sources, **changes)
