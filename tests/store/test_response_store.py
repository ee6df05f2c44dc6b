import pytest

from emojitune.errors import NotFoundError
from emojitune.store.database import Database
from emojitune.store.pages import slice_page
from emojitune.store.responses import ResponseStore, StoredResponse

ITEMS = [{"id": f"msg_{number}"} for number in range(5)]
STORED = StoredResponse("resp_1", 1, None, {"id": "resp_1", "output": []}, ITEMS)


@pytest.fixture
def responses(database: Database) -> ResponseStore:
    return ResponseStore(database, "default")


def test_a_response_is_kept_and_forgotten(responses: ResponseStore) -> None:
    responses.add(STORED)
    assert responses.get("resp_1") == STORED
    responses.delete("resp_1")
    for ask in (responses.get, responses.delete):
        with pytest.raises(NotFoundError, match="Response with id 'resp_1' not found"):
            ask("resp_1")


def test_slices_page_to_the_end_and_stop() -> None:
    for order, expected in (("asc", ITEMS), ("desc", ITEMS[::-1])):
        found: list[object] = []
        after = None
        while True:
            page = slice_page(ITEMS, after=after, limit=2, order=order)
            found += page.items
            if not page.has_more:
                break
            after = page.items[-1]["id"]
        assert found == expected
    assert slice_page(ITEMS, after="msg_4", limit=2, order="asc").items == ()


def test_an_unknown_cursor_does_not_start_over() -> None:
    with pytest.raises(NotFoundError, match="nothing here is called 'msg_9'"):
        slice_page(ITEMS, after="msg_9", limit=2, order="asc")
