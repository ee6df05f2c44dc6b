import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emojitune.server.http import json_cost
from emojitune.server.http.json_cost import MAX_COST, MAX_DIGITS, excess

values = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\,:[{\n 😀'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a"\\,:[{'), inner),
)


def without_strings(value: Any) -> Any:
    """A value with all of its strings and keys empty but distinct."""
    if isinstance(value, str):
        return ""
    if isinstance(value, list):
        return [without_strings(item) for item in value]
    if isinstance(value, dict):
        return {str(n): without_strings(item) for n, item in enumerate(value.values())}
    return value


def structure(text: bytes) -> bytes:
    return bytes(character for character in text if character in b",:[{")


@given(values, st.booleans(), st.integers(1, 40))
def test_strings_do_not_count(value: Any, escaped: bool, slice_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_cost, "_SLICE_BYTES", slice_bytes)
        outside = json_cost._outside_strings(json.dumps(value, ensure_ascii=escaped).encode())
    assert structure(outside) == structure(json.dumps(without_strings(value)).encode())


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"[" + b",".join([b"[]"] * 40_000) + b"]", "too many values"),
        (b"[" + b",".join([b"1"] * (MAX_COST + 1)) + b"]", "too many values"),
        (b"[" + b",".join([b'{"role":"user","content":""}'] * 13_000) + b"]", "too many values"),
        (b"{" + b",".join(b'"%d":1' % n for n in range(100_000)) + b"}", "too many values"),
        (b"[" + b"1" * (MAX_DIGITS + 1) + b"]", "a number of more than 500 digits"),
    ],
)
def test_what_takes_long_to_parse(body: bytes, found: str) -> None:
    assert (excess(body) or "").startswith(found)


@pytest.mark.parametrize(
    "value",
    [
        [list(range(3000))] * 100,  # token ids of as many texts as an embedding request may have
        ["a, [text] {with}: much punctuation" * 30] * 5_000,
        [{"role": "user", "content": "Hello."}] * 10_000,
        {f"property{n}": {"type": "string", "description": "A text."} for n in range(10_000)},
        {"zeros": "0" * 10_000, "number": int("9" * MAX_DIGITS)},
    ],
)
def test_what_honest_clients_send(value: Any) -> None:
    assert excess(json.dumps(value, separators=(",", ":")).encode()) is None
