"""The API's description as a list of endpoints, with a row for each parameter at any depth.

Reads the OpenAPI document and nothing else; `markdown.py` and `page.py` write them out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emojitune.server.http.unsupported import MARK_KEY

# Paths of OpenAI's that this server lacks: a request is a 404, as on every unknown path.
UNSUPPORTED_PATHS = (
    ("/v1/completions", "legacy completions; use chat completions or responses"),
    ("/v1/audio/*", "speech and transcription"),
    ("/v1/images/*", "image generation"),
    ("/v1/videos", "video generation"),
    ("/v1/moderations", "moderation"),
    ("/v1/vector_stores", "vector stores and file search"),
    ("/v1/assistants, /v1/threads", "assistants, which OpenAI has shut down too"),
    ("/v1/conversations", "conversations; use previous_response_id of responses"),
    ("/v1/evals", "evals, which OpenAI shut down on 2026-11-30"),
    ("/v1/realtime/*", "realtime sessions"),
    ("/v1/containers, /v1/skills", "containers and skills"),
    ("/v1/organization/*", "administration of organizations"),
)

_BOUNDS = (
    ("minimum", "at least {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "at most {}"),
    ("exclusiveMaximum", "below {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} items"),
    ("maxItems", "at most {} items"),
    ("minProperties", "at least {} pairs"),
    ("maxProperties", "at most {} pairs"),
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A row of the reference: one parameter, and whether it is supported."""

    name: str
    location: str
    type: str
    default: str
    status: Literal["supported", "refused", "ignored"]
    description: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path, with its parameters."""

    method: str
    path: str
    description: str
    parameters: tuple[Parameter, ...]

    @property
    def title(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def group(self) -> str:
        """The path before the first id, by which endpoints are grouped."""
        steps = self.path.removeprefix("/v1/").split("/{")[0].split("/")
        return "/".join(steps[:2])


def endpoints(document: Mapping[str, Any]) -> list[Endpoint]:
    """The endpoints of an OpenAPI document, in its order."""
    reader = _SchemaReader(document["components"]["schemas"])
    return [
        Endpoint(
            method.upper(),
            path,
            " ".join(operation.get("description", "").split()),
            (*reader.url_parameters(operation), *reader.body_parameters(operation)),
        )
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


class _SchemaReader:
    """Turns schemas into rows."""

    def __init__(self, schemas: Mapping[str, Any]) -> None:
        self._schemas = schemas

    def url_parameters(self, operation: Mapping[str, Any]) -> Iterator[Parameter]:
        for parameter in operation.get("parameters", []):
            description = parameter.get("description") or _path_description(parameter)
            schema = {**parameter["schema"], "description": description}
            yield self._row(
                parameter["name"], parameter["in"], schema, parameter.get("required", False)
            )

    def body_parameters(self, operation: Mapping[str, Any]) -> Iterator[Parameter]:
        if "requestBody" in operation:
            ((media_type, content),) = operation["requestBody"]["content"].items()
            location = "form" if media_type.startswith("multipart/") else "body"
            yield from self._fields(content["schema"], "", location, ())

    def _fields(
        self, schema: Mapping[str, Any], prefix: str, location: str, parents: tuple[str, ...]
    ) -> Iterator[Parameter]:
        """The rows of all fields in `schema`; `parents` are the models that contain it."""
        if "$ref" in schema:
            if schema["$ref"] in parents:  # a recursive model is described once
                return
            parents = (*parents, schema["$ref"])
            schema = self._resolved(schema)
        if "items" in schema:
            yield from self._fields(schema["items"], f"{prefix}[]", location, parents)
        for name, field in schema.get("properties", {}).items():
            path = f"{prefix}.{name}" if prefix else name
            yield self._row(path, location, field, name in schema.get("required", ()))
            if MARK_KEY not in field:
                yield from self._fields(field, path, location, parents)
        yield from self._alternatives(_alternatives(schema), prefix, location, parents)

    def _alternatives(
        self,
        schemas: Sequence[Mapping[str, Any]],
        prefix: str,
        location: str,
        parents: tuple[str, ...],
    ) -> Iterator[Parameter]:
        """The rows of all alternatives; a row that only some have names them."""
        tables = [list(self._fields(schema, prefix, location, parents)) for schema in schemas]
        filled = [table for table in tables if table]
        seen: set[Parameter] = set()
        for schema, table in zip(schemas, tables, strict=True):
            label = self._label(schema)
            for row in table:
                everywhere = all(row in other for other in filled)
                if label and not everywhere:
                    text = f"With {label}: {row.description}"
                    row = Parameter(row.name, row.location, row.type, row.default, row.status, text)
                if row not in seen:
                    seen.add(row)
                    yield row

    def _label(self, schema: Mapping[str, Any]) -> str:
        """The tag that distinguishes this alternative from the others, such as `role` tool."""
        properties = self._resolved(schema).get("properties", {})
        for name in ("type", "role"):
            field = properties.get(name, {})
            values = [field["const"]] if "const" in field else field.get("enum", [])
            if values:
                return f"{name} {' or '.join(map(str, values))}"
        return ""

    def _row(
        self, name: str, location: str, schema: Mapping[str, Any], required: bool
    ) -> Parameter:
        mark = schema.get(MARK_KEY, {})
        status = mark.get("status", "supported")
        text = _mark_description(mark) if mark else schema.get("description", "")
        kind = "" if status == "refused" else self._type(schema)
        default = "required" if required else _default(schema)
        return Parameter(name, location, kind, default, status, " ".join(text.split()))

    def _type(self, schema: Mapping[str, Any]) -> str:
        unresolved = schema
        schema = self._resolved(schema)
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            return " or ".join(_display(value) for value in values if value is not None)
        if alternatives := _alternatives(schema):
            kinds = dict.fromkeys(self._type(alternative) for alternative in alternatives)
            return " or ".join(kinds)
        kind = schema.get("type", "any value")
        if kind == "array":
            kind = f"array of {self._type(schema.get('items', {}))}"
        elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
            kind = f"object of {self._type(schema['additionalProperties'])}"
        elif schema.get("format") == "binary":
            kind = "file"
        bounds = [text.format(schema[key]) for key, text in _BOUNDS if key in schema]
        bounds += [
            text.format(unresolved[key])
            for key, text in _BOUNDS
            if key in unresolved and unresolved != schema
        ]
        return f"{kind} ({', '.join(bounds)})" if bounds else str(kind)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rsplit("/", 1)[1]]
        return schema


def _alternatives(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The alternatives of a value without null, which means that the parameter is left out."""
    members = schema.get("anyOf") or schema.get("oneOf") or []
    return [alternative for alternative in members if alternative.get("type") != "null"]


def _path_description(parameter: Mapping[str, Any]) -> str:
    """A description of a path parameter by its name; a query parameter has to have its own."""
    return f"The {parameter['name'].replace('_', ' ')}." if parameter["in"] == "path" else ""


def _mark_description(mark: Mapping[str, Any]) -> str:
    reason = f"{mark['reason'][0].upper()}{mark['reason'][1:]}."
    if mark["status"] == "ignored":
        return reason
    accepted = " or ".join(_display(value) for value in mark["accepted"])
    passes = f" Only {accepted} is accepted, which requests nothing." if accepted else ""
    return f"400 {mark['code']}. {reason}{passes}"


def _default(schema: Mapping[str, Any]) -> str:
    value = schema.get("default")
    return "" if value is None or isinstance(value, dict) else _display(value)


def _display(value: Any) -> str:
    """A value as JSON, without quotes around a word."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
