"""Faults of requests, spelled in the words of an API."""

import pytest

from emojitune.errors import InvalidRequestError
from emojitune.inference.faults import Field, RequestFault
from emojitune.server.generation.faults import FieldName, spelled

NAMES = {
    Field.TOOL_PARAMETERS: FieldName("tools[{index}].schema"),
    Field.SCHEMA: FieldName("format", in_message="the format", code="bad_schema"),
}


def error_of(fault: RequestFault) -> tuple[str, str | None, str | None]:
    with pytest.raises(InvalidRequestError) as caught, spelled(NAMES):
        raise fault
    assert not isinstance(caught.value, RequestFault)
    return caught.value.message, caught.value.param, caught.value.code


def test_a_field_has_the_name_of_the_api_in_param_and_message() -> None:
    fault = RequestFault(Field.TOOL_PARAMETERS, "Invalid '{}'.".format, code="invalid", index=3)
    assert fault.message == "Invalid 'parameters'."
    assert error_of(fault) == ("Invalid 'tools[3].schema'.", "tools[3].schema", "invalid")


def test_an_api_may_have_another_name_in_messages_and_a_code_of_its_own() -> None:
    fault = RequestFault(Field.SCHEMA, "Invalid {}.".format, code="invalid")
    assert error_of(fault) == ("Invalid the format.", "format", "bad_schema")


def test_a_message_without_a_name_keeps_its_braces() -> None:
    fault = RequestFault(Field.MESSAGES, "A {name} in 'messages'.", code="invalid")
    assert error_of(fault) == ("A {name} in 'messages'.", "messages", "invalid")
