"""JSON as it is defined, and text that can be written down."""

import json
import re
from collections.abc import Iterator
from typing import NoReturn

BYTE_ORDER_MARK = "\ufeff"

_SPACE = re.compile(r"\s*")

# In a schema, and in the arguments of a call, null is a value.
_NULLABLE = frozenset({"default", "const"})
_DATA = _NULLABLE | {"enum", "examples", "arguments"}


class DuplicateKeys(dict[str, object]):
    """An object that names a key twice. The last one counts, as with every reader of JSON."""


def parse_json(text: str) -> object:
    """JSON as it is defined: no NaN, and objects that repeat a key are known for it.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


def parse_row(text: str) -> object:
    """JSON of a line, where a key that is null is a key left out, as the API has it.

    Raises:
        As `parse_json`.
    """
    row = parse_json(text)
    return drop_nulls(row) if "null" in text else row


def iter_list_entries(text: str) -> Iterator[tuple[int, object]]:
    """The entries of a JSON list, each with the line that it begins in.

    Raises:
        As `parse_json`.
    """
    place, line, counted = _past_space(text, text.index("[") + 1), 1, 0
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        entry, place = _DECODER.raw_decode(text, place)
        yield line, entry
        place = _past_space(text, place)
        if text[place : place + 1] == ",":
            place = _past_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
    if text[place + 1 :].strip():
        raise json.JSONDecodeError("Extra data after the list", text, place + 1)


def drop_nulls(value: object) -> object:
    """A value without the keys that are null."""
    if isinstance(value, list):
        return [drop_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    left = {
        key: one if key in _DATA else drop_nulls(one)
        for key, one in value.items()
        if one is not None or key in _NULLABLE
    }
    return type(value)(left)  # an object that repeats a key stays known for it


def is_encodable(text: str) -> bool:
    """Whether it has no half characters, which nothing can write down."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def dump_row(row: object) -> tuple[str, bytes]:
    """A row as text to be read by people, and as bytes; half characters stay escaped in both."""
    escaped, plain = json.dumps(row), json.dumps(row, ensure_ascii=False)
    return plain if is_encodable(plain) else escaped, escaped.encode()


def _past_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else DuplicateKeys(found)


# One for all lines: json.loads would make one a line.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
