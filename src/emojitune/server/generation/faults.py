"""Faults of requests in the words of an API: inference has names of its own for their fields."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from emojitune.errors import InvalidRequestError
from emojitune.inference.faults import Field, RequestFault


@dataclass(frozen=True, slots=True)
class FieldName:
    """A field in the words of an API; `{index}` stands for the number of the tool or input.

    Attributes:
        param: Its name as an error's `param`.
        in_message: Its name in messages, where that is another one.
        code: The error's code, where it is not inference's.
    """

    param: str
    in_message: str | None = None
    code: str | None = None


FieldNames = Mapping[Field, FieldName]


@contextmanager
def spelled(names: FieldNames) -> Iterator[None]:
    """Raise faults of a request as an API's errors; fields without a name have inference's."""
    try:
        yield
    except RequestFault as fault:
        name = names.get(fault.field, FieldName(fault.field.value))
        param, in_message = (
            text.format(index=fault.index) for text in (name.param, name.in_message or name.param)
        )
        raise InvalidRequestError(
            fault.message_for(in_message), code=name.code or fault.code, param=param
        ) from fault
