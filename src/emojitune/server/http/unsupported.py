"""Unsupported parameters, marked with the reason on the field that declares them.

The request models are the single place that declares an endpoint's parameters. A field without a
mark is supported; `Ignored` is accepted and deliberately unused; `Refused` is a 400. Validation,
the page at /docs and docs/api.md all read the marks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from emojitune.server.http.json_bodies import drop_nulls

MARK_KEY = "x-emojitune"  # the key of a mark in the OpenAPI document
_CODE = "unsupported_parameter"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A mark, `Annotated[str | None, Ignored("names ...")] = None`: validated, then unused."""

    reason: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            **handler(schema),
            "description": f"Ignored on purpose: {self.reason}.",
            MARK_KEY: {"status": "ignored", "reason": self.reason},
        }


# Compared by identity: Annotated merges equal marks, and (0,) equals (False,).
@dataclass(frozen=True, slots=True, eq=False)
class Refused:
    """A mark, `Annotated[Any, Refused("replies are text")] = None`: other than `neutral` is a 400.

    `reason` is a clause that follows "Here". A neutral value requests nothing.
    """

    reason: str
    neutral: Sequence[Any] = ()

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {
            **handler(schema),
            "description": f"Refused (400, {_CODE}): {self.reason}.",
            MARK_KEY: {
                "status": "refused",
                "code": _CODE,
                "reason": self.reason,
                "accepted": list(self.neutral),
            },
        }

    def _check(self, value: Any) -> Any:
        requested = drop_nulls(value)
        if requested is not None and not any(
            _strictly_equal(requested, neutral) for neutral in self.neutral
        ):
            message = f"Unsupported parameter: '{{param}}'. Here {self.reason}. Leave it out."
            context = {"message": message, "code": _CODE, "param": None}
            raise PydanticCustomError("refused", "{message}", context)
        return value


def mark_of(field: FieldInfo) -> Ignored | Refused | None:
    """The mark of a field; None when it is supported."""
    marks = [mark for mark in field.metadata if isinstance(mark, Ignored | Refused)]
    return marks[0] if marks else None


def marked_fields(model: type[BaseModel], kind: type[Ignored] | type[Refused]) -> frozenset[str]:
    """The names of a model's fields with a mark of this kind."""
    fields = model.model_fields.items()
    return frozenset(name for name, field in fields if isinstance(mark_of(field), kind))


def _strictly_equal(value: Any, neutral: Any) -> bool:
    """Whether two values are equal, with True unlike 1."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
