"""The objects of a page of a list, each with its text exactly as it was received.

The SDK's models would drop nothing today, but parsing and writing JSON again changes numbers
(`1e-5`), and keys that occur twice.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True)
class Item:
    """An object of a provider: its JSON text as received, and its value."""

    text: str
    value: dict[str, Any]

    @property
    def id(self) -> str:
        """Empty if the provider sent none."""
        found = self.value.get("id")
        return found if isinstance(found, str) else ""

    @property
    def line(self) -> str:
        """The text on one line. JSON has line breaks between tokens only."""
        return self.text.replace("\r", " ").replace("\n", " ")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list; `has_more` is None where the provider does not say."""

    items: tuple[Item, ...]
    has_more: bool | None


def parse_item(body: bytes) -> Item:
    """The object of a response.

    Raises:
        ValueError: The body is not a JSON object.
    """
    text = _text(body)
    value = _load(text)
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    return Item(text.strip(), value)


def parse_page(body: bytes) -> Page:
    """The objects of a page.

    Raises:
        ValueError: The body is not a list of objects in OpenAI's format.
    """
    text = _text(body)
    value = _load(text)
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise ValueError("it has no list named data")
    if not all(isinstance(element, dict) for element in value["data"]):
        raise ValueError("its list named data has elements that are not objects")
    texts = [one for key, start in _values(text) if key == "data" for one in _elements(text, start)]
    pairs = zip(texts[-len(value["data"]) :], value["data"], strict=False)
    has_more = value.get("has_more")
    items = tuple(Item(*pair) for pair in pairs)
    return Page(items, has_more if isinstance(has_more, bool) else None)


def raw_value(text: str, *keys: str) -> str | None:
    """The JSON text within a valid JSON object under a path of keys; None if there is none."""
    for key in keys:
        if not text.startswith("{"):
            return None
        starts = [start for name, start in _values(text) if name == key]
        if not starts:
            return None
        text = text[starts[-1] : _decode(text, starts[-1])[1]]
    return text


def _text(body: bytes) -> str:
    return body.decode("utf-8-sig")  # a UnicodeDecodeError is a ValueError


def _load(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _values(text: str) -> Iterator[tuple[str, int]]:
    """The keys of a valid JSON object, with the position at which each one's value starts."""
    at = _skip(text, _skip(text, 0) + 1)
    while text[at] != "}":
        key, at = _decode(text, at)
        at = _skip(text, _skip(text, at) + 1)  # after the colon
        yield key, at
        at = _after(text, _decode(text, at)[1])


def _elements(text: str, at: int) -> Iterator[str]:
    """The texts of the elements of a valid JSON array that starts at `at`."""
    at = _skip(text, at + 1)
    while text[at] != "]":
        end = _decode(text, at)[1]
        yield text[at:end]
        at = _after(text, end)


def _after(text: str, at: int) -> int:
    """The start of the next element, or of the closing bracket."""
    at = _skip(text, at)
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
