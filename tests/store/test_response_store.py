from dataclasses import replace

import pytest
from sqlalchemy import event

from emojitune.errors import NotFoundError
from emojitune.store.database import Database
from emojitune.store.pagination import slice_page
from emojitune.store.responses import ResponseStore, StoredResponse

ITEMS = [{"id": f"msg_{number}"} for number in range(5)]
STORED = StoredResponse("resp_1", 1, None, {"id": "resp_1", "output": []}, ITEMS)


@pytest.fixture
def responses(database: Database) -> ResponseStore:
    return ResponseStore(database, "default")


def test_a_response_is_stored_and_deleted(responses: ResponseStore) -> None:
    responses.add(STORED, ITEMS)
    assert responses.get("resp_1") == STORED
    responses.delete("resp_1")
    for ask in (responses.get, responses.delete):
        with pytest.raises(NotFoundError, match="Response with id 'resp_1' not found"):
            ask("resp_1")


def test_an_item_belongs_to_its_response(responses: ResponseStore, database: Database) -> None:
    old, new = ({"id": "msg_mine", "text": text} for text in ("old", "new"))
    said = {"id": "msg_said"}
    first = replace(STORED, input_items=[old], response={"id": "resp_1", "output": [said]})
    responses.add(first, [old])
    assert responses.items(["msg_said", "msg_mine"]) == {"msg_said": said, "msg_mine": old}
    second = replace(STORED, id="resp_2", input_items=[said, new])
    responses.add(second, [new])
    assert responses.items(["msg_mine"]) == {"msg_mine": new}, "the last one with this id"
    other = ResponseStore(database, "other")
    responses.delete("resp_1")
    for store, item in ((responses, "msg_said"), (other, "msg_mine")):
        with pytest.raises(NotFoundError, match=f"Item with id '{item}' not found"):
            store.items([item])
    with pytest.raises(NotFoundError):
        other.delete("resp_2")
    assert responses.items(["msg_mine"]) == {"msg_mine": new}


def test_an_item_is_found_by_an_index(responses: ResponseStore, database: Database) -> None:
    statements: list[tuple[str, tuple[str, ...]]] = []
    with database.transaction() as connection:  # reads in it use this connection
        event.listen(
            connection, "before_cursor_execute", lambda *call: statements.append(call[2:4])
        )
        with pytest.raises(NotFoundError):
            responses.items(["msg_0"])
        [(statement, values)] = statements
        steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        plan = [step.detail for step in steps]
    assert any("items_by_id" in step for step in plan), plan
    assert not any("SCAN" in step for step in plan), plan


def test_any_number_of_items_is_found_in_their_order(responses: ResponseStore) -> None:
    items = [{"id": f"msg_{number}"} for number in range(12_000)]
    responses.add(STORED, items)
    ids = [str(item["id"]) for item in reversed(items)]
    assert list(responses.items([*ids, ids[0]])) == ids


def test_slices_page_to_the_end_and_stop() -> None:
    for order, expected in (("asc", ITEMS), ("desc", ITEMS[::-1])):
        items: list[object] = []
        after = None
        while True:
            page = slice_page(ITEMS, after=after, limit=2, order=order)
            items += page.items
            if not page.has_more:
                break
            after = page.items[-1]["id"]
        assert items == expected
    assert slice_page(ITEMS, after="msg_4", limit=2, order="asc").items == ()


def test_an_unknown_cursor_is_not_the_first_page() -> None:
    with pytest.raises(NotFoundError, match="nothing here is called 'msg_9'"):
        slice_page(ITEMS, after="msg_9", limit=2, order="asc")
