"""JSON as it is defined, and text that can be written down."""

import json
from typing import NoReturn


class RepeatedKeys(dict[str, object]):
    """An object that names a key twice. The last one counts, as with every reader of JSON."""


def read_object(text: str) -> object:
    """JSON as it is defined: no NaN, and objects that repeat a key are known for it.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


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
