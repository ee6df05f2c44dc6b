"""JSON as it is defined, and text that can be written down."""

import json
from typing import NoReturn

BYTE_ORDER_MARK = "\ufeff"

# In a schema, and in the arguments of a call, null is a value.
_NULLABLE = frozenset({"default", "const"})
_DATA = _NULLABLE | {"enum", "examples", "arguments"}


class RepeatedKeys(dict[str, object]):
    """An object that names a key twice. The last one counts, as with every reader of JSON."""


def read_object(text: str) -> object:
    """JSON as it is defined: no NaN, and objects that repeat a key are known for it.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


def read_row(text: str) -> object:
    """JSON of a line, where a key that is null is a key left out, as the API has it.

    Raises:
        As `read_object`.
    """
    row = read_object(text)
    return without_nulls(row) if "null" in text else row


def without_nulls(value: object) -> object:
    """A value without the keys that are null."""
    if isinstance(value, list):
        return [without_nulls(one) for one in value]
    if not isinstance(value, dict):
        return value
    left = {
        key: one if key in _DATA else without_nulls(one)
        for key, one in value.items()
        if one is not None or key in _NULLABLE
    }
    return type(value)(left)  # an object that repeats a key stays known for it


def encodable(text: str) -> bool:
    """Whether it has no half characters, which nothing can write down."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(found)


# One for all lines: json.loads would make one a line.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
