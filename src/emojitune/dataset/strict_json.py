"""Strict JSON: no NaN, repeated keys are noticed, and text can be encoded as UTF-8."""

import json
import re
from collections.abc import Iterator
from typing import NoReturn

BYTE_ORDER_MARK = "\ufeff"

_SPACE = re.compile(r"\s*")

# Where null is a value: in a schema's keywords, and in the arguments of a tool call.
_NULLABLE = frozenset({"default", "const"})
_DATA = _NULLABLE | {"enum", "examples", "arguments"}


class DuplicateKeys(dict[str, object]):
    """An object that repeats a key. The last value counts, as in every JSON reader."""


def parse_json(text: str) -> object:
    """Parse strict JSON; an object that repeats a key becomes `DuplicateKeys`.

    Raises:
        ValueError: `text` is not JSON.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


def parse_row(text: str) -> object:
    """Parse one JSON line, without the keys that are null, as OpenAI's API does.

    Raises:
        ValueError: `text` is not JSON.
        RecursionError: It is nested too deeply.
    """
    row = parse_json(text)
    return drop_nulls(row) if "null" in text else row


def iter_list_entries(text: str) -> Iterator[tuple[int, object]]:
    """Entries of a JSON list, each with the number of the line that it begins in.

    Raises:
        ValueError: `text` is not a JSON list.
        RecursionError: It is nested too deeply.
    """
    position, line, counted = _skip_space(text, text.index("[") + 1), 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        entry, position = _DECODER.raw_decode(text, position)
        yield line, entry
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
    if text[position + 1 :].strip():
        raise json.JSONDecodeError("Extra data after the list", text, position + 1)


def drop_nulls(value: object) -> object:
    """Remove the keys that are null, except where null is a value."""
    if isinstance(value, list):
        return [drop_nulls(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: entry if key in _DATA else drop_nulls(entry)
        for key, entry in value.items()
        if entry is not None or key in _NULLABLE
    }
    return type(value)(kept)  # keeps `DuplicateKeys`


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can encode `text`: it has no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def dump_row(row: object) -> tuple[str, bytes]:
    """Serialize a row as readable text and as bytes; lone surrogates stay escaped in both."""
    escaped, readable = json.dumps(row), json.dumps(row, ensure_ascii=False)
    return readable if is_encodable(readable) else escaped, escaped.encode()


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else DuplicateKeys(fields)


# Shared by all lines: json.loads would build a decoder for each.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)
