"""Relaxation of a JSON schema to the part of it that can be enforced.

Knows no grammar: whether a schema compiles is up to a function, which ends it all with an error of
its own once it has taken too long.
"""

from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

_DEFINITIONS = ("$defs", "definitions")
_BY_NAME = ("properties", "patternProperties")


def relaxed(schema: Schema, compiles: Callable[[Schema], bool]) -> Schema:
    """As much of `schema` as compiles: a keyword stays if it compiles beside those before it.

    Each entry of `$defs` is relaxed by itself, so that references to it may stay.
    """
    if compiles(schema):
        return schema
    listed = {key: schema[key] for key in _DEFINITIONS if isinstance(schema.get(key), dict)}
    relaxation = _Relaxation(compiles, {key: {name: {} for name in listed[key]} for key in listed})
    definitions = {key: relaxation.each(listed[key]) for key in listed}
    others = relaxation.part({key: schema[key] for key in schema if key not in _DEFINITIONS})
    for candidate in ({**others, **definitions}, {**others, **relaxation.stubs}):
        if compiles(candidate):
            return candidate
    return {}


class _Relaxation:
    """Relaxes parts of a schema; their references lead to `stubs`, which allow anything."""

    def __init__(self, compiles: Callable[[Schema], bool], stubs: Schema) -> None:
        self.stubs = stubs
        self._compiles = compiles

    def part(self, schema: Any) -> Any:
        """As much of a schema as compiles by itself."""
        if isinstance(schema, bool) or not isinstance(schema, dict):
            return schema if isinstance(schema, bool) else {}
        if self._fits(schema):
            return schema
        kept: dict[str, Any] = {}
        for key, value in schema.items():
            if self._fits({**kept, key: value}):
                kept[key] = value
            elif self._fits({**kept, key: (inner := self._inside(key, value))}):
                kept[key] = inner
        return kept

    def each(self, schemas: Schema) -> dict[str, Any]:
        """As much of each of several schemas as compiles, by name."""
        return {name: self.part(schema) for name, schema in schemas.items()}

    def _inside(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self.part(item) if isinstance(item, dict) else item for item in value]
        if isinstance(value, dict):
            return self.each(value) if key in _BY_NAME else self.part(value)
        return value

    def _fits(self, schema: Schema) -> bool:
        return self._compiles({**schema, **self.stubs})
