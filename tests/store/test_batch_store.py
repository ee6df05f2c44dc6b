import pytest

from emojitune.errors import NotFoundError
from emojitune.store import batches as batches_module
from emojitune.store.batches import (
    BatchError,
    BatchResult,
    BatchStore,
    TokenUsage,
)
from emojitune.store.database import Database
from emojitune.store.files import FileStore


@pytest.fixture
def batches(database: Database) -> BatchStore:
    return BatchStore(database, "default")


def create(batches: BatchStore) -> str:
    batch = batches.create(
        endpoint="/v1/chat/completions", input_file_id="file-1", completion_window="24h"
    )
    assert batch.id.startswith("batch_")
    assert batch.status == "validating"
    return batch.id


def test_a_line_has_one_result_and_is_counted_once(batches: BatchStore) -> None:
    batch_id = create(batches)
    usage = TokenUsage(10, 4, 2, 1)
    batches.record(batch_id, [BatchResult(1, False, "first", usage)])
    batches.record(
        batch_id,
        [
            BatchResult(1, True, "again", usage),
            BatchResult(2, True, "bad"),
            BatchResult(3, False, "third", usage),
        ],
    )
    batch = batches.get(batch_id)
    assert (batch.completed, batch.failed) == (2, 1)
    assert batch.usage == TokenUsage(20, 8, 4, 2)
    assert batches.completed_lines(batch_id) == {1, 2, 3}
    assert list(batches.result_lines(batch_id, failed=False)) == ["first", "third"]
    assert list(batches.result_lines(batch_id, failed=True)) == ["bad"]


def test_result_lines_are_in_the_order_of_the_input(
    batches: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_READ_AT_ONCE", 2)
    batch_id, other = create(batches), create(batches)
    batches.record(other, [BatchResult(1, False, "not mine")])
    for line in (7, 2, 5, 1, 9):
        batches.record(batch_id, [BatchResult(line, False, str(line))])
    assert list(batches.result_lines(batch_id, failed=False)) == ["1", "2", "5", "7", "9"]


def test_results_are_deleted_when_the_batch_ends(batches: BatchStore) -> None:
    batch_id, other = create(batches), create(batches)
    for each in (batch_id, other):
        batches.record(each, [BatchResult(1, False, "x")])
    errors = [BatchError("empty_file", "no", None, 3)]
    batch = batches.transition(batch_id, "failed", sources=["validating"], errors=errors)
    assert batch.errors == tuple(errors)
    assert batches.completed_lines(batch_id) == set()
    assert batches.completed_lines(other) == {1}
    assert batches.unfinished() == [other]


def test_an_output_file_and_its_name_in_the_batch_are_kept_together(
    batches: BatchStore, files: FileStore, database: Database
) -> None:
    batch_id = create(batches)

    def note_and_fail(connection, stored) -> None:  # type: ignore[no-untyped-def]
        batches.set_output_file(connection, batch_id, stored, failed=True)
        raise ZeroDivisionError

    with files.receive([b"x"]) as incoming, pytest.raises(ZeroDivisionError):
        files.keep(incoming, filename="a", purpose="batch_output", then=note_and_fail)
    assert batches.get(batch_id).error_file_id is None
    assert files.list().items == ()


def test_unknown_batches_are_not_found(batches: BatchStore) -> None:
    with pytest.raises(NotFoundError, match="No batch found with id 'batch_x'"):
        batches.get("batch_x")
    with pytest.raises(NotFoundError):
        batches.list(after="batch_x")
