import pytest

from emojitune.errors import InvalidStateError
from emojitune.jobs.batch_states import TRANSITIONS, move
from emojitune.store.batches import FINISHED, BatchStore
from emojitune.store.database import open_database


def test_every_state_is_reached_and_the_finished_ones_are_left_by_none() -> None:
    followers = set().union(*TRANSITIONS.values())
    assert followers | {"validating"} == set(TRANSITIONS)
    assert {state for state, following in TRANSITIONS.items() if not following} == set(FINISHED)


@pytest.mark.parametrize("start", TRANSITIONS)
@pytest.mark.parametrize("to", sorted(set(TRANSITIONS) - {"validating"}))
def test_a_batch_moves_along_the_table_only(tmp_path, start: str, to: str) -> None:
    database = open_database(tmp_path)
    batches = BatchStore(database, "default")
    batch_id = batches.create(
        endpoint="/v1/embeddings", input_file_id="file-1", completion_window="24h"
    ).id
    if start != "validating":
        batches.transition(batch_id, start, sources=TRANSITIONS)
    if to in TRANSITIONS[start]:
        moved = move(batches, batch_id, to)
        assert moved.status == to
        assert getattr(moved, f"{to}_at") is not None
    else:
        with pytest.raises(InvalidStateError, match=f"this one is {start}"):
            move(batches, batch_id, to)
        assert batches.get(batch_id).status == start
    database.close()
