"""Objects of a page, with the very text that was received."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emojitune.workflow.rescue.pages import parse_item, parse_page


def test_texts_stay_as_they_were_received() -> None:
    texts = ['{"id":"a", "n":1.80, "e":1E-5}', '{ "id" : "b",\r\n "x": ["]", "}"] }', "{}"]
    body = ' {"object":"list",\n"data" : [ ' + " ,\n".join(texts) + ' ],"has_more" : true } '
    page = parse_page(body.encode())
    assert [item.text for item in page.items] == texts
    assert [item.id for item in page.items] == ["a", "b", ""]
    assert page.items[1].line == '{ "id" : "b",   "x": ["]", "}"] }'.replace("   ", "   ")
    assert page.has_more is True
    assert parse_item(b'\xef\xbb\xbf {"id": 7}\n').text == '{"id": 7}'


@given(
    st.lists(
        st.dictionaries(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists))
    )
)
def test_any_page_is_cut_where_its_objects_end(objects: list[dict[str, object]]) -> None:
    texts = [json.dumps(one, indent=1) for one in objects]
    body = f'{{"more": {{"data": [1]}}, "data": [{", ".join(texts)}]}}'
    page = parse_page(body.encode())
    assert [item.text for item in page.items] == texts
    assert all("\n" not in item.line for item in page.items)
    assert [json.dumps(json.loads(item.line)) for item in page.items] == list(
        map(json.dumps, objects)
    )
    assert page.has_more is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b'{"data": {}}', b'{"data": [1]}', b'{"data": [{}'),
        *(b"\xff", b"[" * 100_000, b'{"data": [{"n": ' + b"9" * 5000 + b"}]}"),
    ],
)
def test_what_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_page(body)
