"""Nothing is silently ignored: every endpoint and every parameter has a description."""

from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from emojitune.server.app import create_app
from emojitune.server.docs.openapi import api_routes, body_model_of, openapi_document
from emojitune.server.docs.reference import endpoints
from emojitune.settings import Settings

APP = create_app(Settings(api_key="none"))


def test_every_route_has_a_one_sentence_description() -> None:
    for endpoint in endpoints(openapi_document(APP)):
        assert endpoint.description.endswith("."), f"{endpoint.title} has no docstring"


def test_every_parameter_has_a_description() -> None:
    mute = [
        f"{endpoint.title}: {row.name}"
        for endpoint in endpoints(openapi_document(APP))
        for row in endpoint.parameters
        if not row.description
    ]
    assert mute == [], "give them a description, or a mark"


def test_every_route_with_a_body_names_its_model() -> None:
    # These have an empty body, or are refused with any.
    bare = {"cancel", "pause", "resume", "compact"}
    for method, path, route in api_routes(APP):
        if method == "POST" and path.rsplit("/", 1)[1] not in bare:
            assert body_model_of(route) is not None, f"{method} {path}"


def test_a_validator_that_widens_a_field_declares_its_input_type() -> None:
    """Otherwise the reference shows the validator's output, such as a list, not its input."""
    silent = [
        f"{model.__name__}.{name}"
        for model in sorted(_models(), key=lambda model: model.__name__)
        for name, field in model.model_fields.items()
        if any(
            isinstance(mark, BeforeValidator) and mark.json_schema_input_type is PydanticUndefined
            for mark in _marks(field)
        )
    ]
    assert silent == [], "give BeforeValidator a json_schema_input_type"


def _models() -> set[type[BaseModel]]:
    """All request models, including nested ones."""
    waiting = [body[0] for _, _, route in api_routes(APP) if (body := body_model_of(route))]
    models: set[type[BaseModel]] = set()
    while waiting:
        model = waiting.pop()
        if model not in models:
            models.add(model)
            for field in model.model_fields.values():
                waiting += [kind for kind in _inside(field.annotation) if _is_model(kind)]
    return models


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _inside(annotation: Any) -> list[Any]:
    parts = [annotation]
    for argument in getattr(annotation, "__args__", ()):
        parts += _inside(argument)
    return parts


def _marks(field: FieldInfo) -> list[Any]:
    inner = [
        mark for kind in _inside(field.annotation) for mark in getattr(kind, "__metadata__", ())
    ]
    return [*field.metadata, *inner]
