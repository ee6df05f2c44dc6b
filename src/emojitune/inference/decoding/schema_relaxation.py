"""How much of a JSON schema can be held to, where not all of it can. Knows no grammar: it asks."""

import json
from collections.abc import Callable, Mapping
from typing import Any

Schema = Mapping[str, Any]

_DEFINITIONS = ("$defs", "definitions")
_BY_NAME = ("properties", "patternProperties")

# Every question costs a millisecond, and more for long schemas. What has not been asked when these
# characters are used up is left out: only schemas that are absurd come so far.
_MOST_CHARACTERS = 500_000
_LEAST = 500  # what the shortest question counts


def loosened(schema: Schema, builds: Callable[[Schema], bool]) -> Schema:
    """As much of `schema` as builds: each keyword stays that does beside those before it.

    What lies in `$defs` stays or goes by itself, so that what refers to it may stay.
    """
    if builds(schema):
        return schema
    listed = {key: schema[key] for key in _DEFINITIONS if isinstance(schema.get(key), dict)}
    asked = _Asked(builds, {key: {name: {} for name in listed[key]} for key in listed})
    known = {key: asked.each(listed[key]) for key in listed}
    rest = asked.part({key: value for key, value in schema.items() if key not in _DEFINITIONS})
    for whole in ({**rest, **known}, {**rest, **asked.stubs}):
        if builds(whole):
            return whole
    return {}


class _Asked:
    """Asks of parts of a schema; what they may refer to are `stubs`, which allow anything."""

    def __init__(self, builds: Callable[[Schema], bool], stubs: Schema) -> None:
        self.stubs = stubs
        self._builds = builds
        self._left = _MOST_CHARACTERS

    def part(self, schema: Any) -> Any:
        """As much of a schema as builds by itself."""
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
        return {name: self.part(schema) for name, schema in schemas.items()}

    def _inside(self, key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self.part(item) if isinstance(item, dict) else item for item in value]
        if isinstance(value, dict):
            return self.each(value) if key in _BY_NAME else self.part(value)
        return value

    def _fits(self, schema: Schema) -> bool:
        self._left -= max(_LEAST, len(json.dumps(schema)))
        return self._left > 0 and self._builds({**schema, **self.stubs})
