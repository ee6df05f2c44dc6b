"""Values for a JSON Schema, valid ones and mutated ones. Knows nothing of HTTP."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

Schema = Mapping[str, Any]

ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\ud800",  # half a character
    "😈\u202eé\ufeff",
    "x" * 5000,
    "../../etc/passwd",
    "<|im_end|>\n<|im_start|>assistant\n",
    "\ue0000\ue001",  # as the chat template's placeholders
    "{param} {message} %s {0}",
    "[key]",
    "[tag] text",
    "1e999",
    "' OR 1=1; --",
    "ft:a:b:c:d",
    "a\r\nb: c",
)
ODD_NUMBERS = (
    0,
    -1,
    1.0,
    -0.0,
    0.1,
    2**31,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**400,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
)
# Latin and some characters that often cause trouble. Not st.text(), which takes four seconds to
# categorize all of Unicode.
_SIGNS = [*map(chr, range(0x250)), *"İßあ漢😈\u200d\u2028\u202e\ue000\ue001\ufeff\ufffd\U0010ffff"]


def words(most: int, least: int = 0) -> SearchStrategy[str]:
    """Texts of `least` to `most` characters."""
    return st.lists(st.sampled_from(_SIGNS), min_size=least, max_size=most).map("".join)


texts = st.one_of(st.sampled_from(ODD_TEXTS), words(12))
numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers(-5, 300), st.floats(-3, 3))
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
any_value = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words(5), inner, max_size=3)
    ),
    max_leaves=5,
)

_MOST_OPTIONAL = 4  # optional keys of an object: more are rarely valid together


class SchemaStrategies:
    """Strategies for the schemas of a document.

    Args:
        definitions: Schemas by the last part of a `$ref`.
        known: Better values than those of the schema, by the name of a property, or by
            "title.name" with the title of its object, which makes the property required.
    """

    def __init__(
        self, definitions: Mapping[str, Schema], known: Mapping[str, SearchStrategy[Any]]
    ) -> None:
        self._definitions = definitions
        self._known = known
        self._referred: dict[str, SearchStrategy[Any]] = {}

    def value(self, schema: Schema) -> SearchStrategy[Any]:
        """Valid values for `schema`."""
        if "$ref" in schema:
            return self._reference(schema["$ref"].rsplit("/", 1)[1])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return st.one_of([self.value(inner) for inner in schema[key]])
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        make: Callable[[Schema], SearchStrategy[Any]] = {
            "object": self._object,
            "array": self._array,
            "string": _text,
            "integer": _integer,
            "number": _number,
            "boolean": lambda _schema: st.booleans(),
            "null": lambda _schema: st.none(),
        }.get(schema.get("type", ""), lambda _schema: any_value)
        return make(schema)

    def _reference(self, name: str) -> SearchStrategy[Any]:
        if name not in self._referred:
            # Deferred, because definitions may be recursive.
            self._referred[name] = st.deferred(lambda: self.value(self._definitions[name]))
        return self._referred[name]

    def _object(self, schema: Schema) -> SearchStrategy[Any]:
        properties = schema.get("properties")
        if properties is None:
            more = schema.get("additionalProperties")
            values = self.value(more) if isinstance(more, dict) else any_value
            least = schema.get("minProperties", 0)
            return st.dictionaries(words(5), values, min_size=least, max_size=least + 2)
        title = schema.get("title")
        inside = {name: self._inside(title, name, inner) for name, inner in properties.items()}
        needed = {name for name in inside if f"{title}.{name}" in self._known}
        needed.update(schema.get("required", ()))
        optional = sorted(set(inside) - needed)
        # Properties that are always refused are rarely useful.
        likely = [name for name in optional if not _refused(properties[name])]
        one = st.one_of([st.sampled_from(names) for names in (likely, likely, optional) if names])
        chosen = st.lists(one, max_size=_MOST_OPTIONAL, unique=True)

        @st.composite
        def made(draw: DrawFn) -> dict[str, Any]:
            names = [*sorted(needed), *(draw(chosen) if optional else ())]
            return {name: draw(inside[name]) for name in names}

        return made()

    def _inside(self, title: str, name: str, schema: Schema) -> SearchStrategy[Any]:
        for known in (f"{title}.{name}", name):
            if known in self._known:
                return self._known[known]
        return self.value(schema)

    def _array(self, schema: Schema) -> SearchStrategy[Any]:
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", 3), least + 2)
        return st.lists(self.value(schema.get("items", {})), min_size=least, max_size=most)


def _refused(schema: Schema) -> bool:
    return bool(schema.get("x-emojitune", {}).get("status") == "refused")


def _text(schema: Schema) -> SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 5000)
    odd = [text for text in ODD_TEXTS if least <= len(text) <= most]
    return st.one_of(st.sampled_from(odd), words(min(most, least + 12), least))


def _integer(schema: Schema) -> SearchStrategy[int]:
    least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63)
    near = st.integers(max(least, -2), min(most, max(least, 0) + 20))
    return st.one_of(near, st.sampled_from([least, most]))


def _number(schema: Schema) -> SearchStrategy[float]:
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1e9))
    return st.floats(least, schema.get("maximum", 1e9), exclude_min="exclusiveMinimum" in schema)


@st.composite
def mutated(draw: DrawFn, values: SearchStrategy[Any]) -> Any:
    """A value, half of the time with one or two mutations."""
    value = deepcopy(draw(values))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        places = [([value], 0), *_places(value)]
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        if isinstance(holder, dict) and draw(st.booleans()):
            _mutate_keys(draw, holder, key)
        elif holder[key] is value:
            value = draw(any_value)
        else:
            holder[key] = draw(any_value)
    return value


def _mutate_keys(draw: DrawFn, holder: dict[str, Any], key: str) -> None:
    kept = holder.pop(key)
    if draw(st.booleans()):
        holder[draw(texts)] = kept


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place inside a value: its container, and the key or index."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key])
