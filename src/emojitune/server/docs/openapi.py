"""The API's description in OpenAPI 3.1, generated from the routes and their body models.

FastAPI describes what it parses itself: paths, queries, docstrings. Bodies are parsed by
dependencies, which name the model that validates them (`body_model`): they are added here.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from emojitune import __version__

_REFERENCE = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "description": "What went wrong: the rule, what was found, and what to do next.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the routes of `app` under /v1."""
    operations = app.openapi()["paths"]
    bodies = {
        (method.lower(), path): body
        for method, path, route in api_routes(app)
        if (body := body_model_of(route)) is not None
    }
    references, schemas = _schemas({model for model, _ in bodies.values()})
    paths: dict[str, dict[str, Any]] = {}
    for method, path, _ in api_routes(app):
        operation = _operation(operations[path][method.lower()])
        if (method.lower(), path) in bodies:
            model, media_type = bodies[method.lower(), path]
            content = {media_type: {"schema": references[model]}}
            operation["requestBody"] = {"required": True, "content": content}
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "emojitune", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def api_routes(app: FastAPI) -> Iterator[tuple[str, str, APIRoute]]:
    """Method, path and route of every endpoint under /v1, in the order of their declaration."""
    for context in iter_route_contexts(app.routes):
        route, path = context.original_route, context.path_format
        if isinstance(route, APIRoute) and path is not None and path.startswith("/v1/"):
            for method in sorted(route.methods or ()):
                yield method, path, route


def body_model_of(route: APIRoute) -> tuple[type[BaseModel], str] | None:
    """The model of a route's body and the body's media type; None when it reads no body."""
    for dependant in _all_dependencies(route.dependant):
        model: type[BaseModel] | None = getattr(dependant.call, "body_model", None)
        if model is not None:
            return model, getattr(dependant.call, "media_type", "application/json")
    return None


def _all_dependencies(dependant: Dependant) -> Iterator[Dependant]:
    for dependency in dependant.dependencies:
        yield dependency
        yield from _all_dependencies(dependency)


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        key: operation[key] for key in ("description", "parameters") if key in operation
    }
    error = {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Error")}}}
    kept["responses"] = {
        "200": {"description": "OpenAI's object, as the official client reads it."},
        "4XX": {"description": "OpenAI's error object.", "content": error},
    }
    return kept


class _BodySchema(GenerateJsonSchema):
    """JSON schemas of request bodies; a file in a form is binary."""

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> JsonSchemaValue:
        return {"type": "string", "format": "binary"}


def _schemas(
    models: set[type[BaseModel]],
) -> tuple[dict[type[BaseModel], JsonSchemaValue], dict[str, Any]]:
    """A reference to each model, and the definitions of all."""
    ordered = sorted(models, key=lambda model: (model.__name__, model.__module__))
    references, definitions = models_json_schema(
        [(model, "validation") for model in ordered],
        ref_template=_REFERENCE,
        schema_generator=_BodySchema,
    )
    by_model = {model: references[model, "validation"] for model in ordered}
    return by_model, definitions.get("$defs", {})
