"""Faults of requests, each of a field that has a name of inference's own.

Knows no API: each edge spells the fields in its words.
"""

from collections.abc import Callable
from enum import Enum

from emojitune.errors import InvalidRequestError


class Field(Enum):
    """A field of a request; its value is its name where no API has spelled it."""

    MESSAGES = "messages"
    MAX_TOKENS = "max_tokens"
    LOGIT_BIAS = "logit_bias"
    OUTPUT_FORMAT = "output_format"
    SCHEMA = "schema"
    TOOLS = "tools"
    TOOL_PARAMETERS = "parameters"
    DECODING = "decoding"
    LABELS = "labels"
    ALTERNATIVES = "alternatives"
    INPUT = "input"


class RequestFault(InvalidRequestError):
    """A field of a request breaks a rule of the model.

    Args:
        field: The field at fault.
        message: The message; where it contains the field's name, a function from that name to it.
        index: Which tool or input is at fault, counted from 0.
    """

    def __init__(
        self,
        field: Field,
        message: str | Callable[[str], str],
        *,
        code: str,
        index: int | None = None,
    ) -> None:
        self.field = field
        self.index = index
        self._message = message
        super().__init__(self.message_for(field.value), code=code)

    def message_for(self, name: str) -> str:
        """The message, with the name that an API has for the field."""
        return self._message if isinstance(self._message, str) else self._message(name)
