"""JSON bodies: read, validated by strict models, and refused in OpenAI's words and codes.

Knows how a request can break a rule, not which rules an endpoint has.
"""

import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, PydanticKnownError, from_json
from starlette.requests import ClientDisconnect

from emojitune.errors import InvalidRequestError
from emojitune.server.http.json_cost import excess
from emojitune.server.threads import FairThreads

_MANY_KEYS = 100  # no object has as many fields
_SHOWN = 80  # characters of a value, or of a key, in a message

# Prefix of the tags of union members: pydantic puts them into the path of an error, clients don't.
UNION_TAG = "[tag] "

MAX_JSON_BYTES = 8 * 1024 * 1024
# Larger bodies are parsed in a thread; a smaller one takes less time than the way there.
_PARSED_INLINE_BYTES = 16 * 1024
# Parsers hold Python's lock for a quarter of the time at most: several in a row would stop the
# event loop, and the thread that computes replies takes that lock hundreds of times for each token.
_PAUSE = 3  # times as long as the last one took


def drop_nulls(value: Any) -> Any:
    """`value` without its null keys, if it is a JSON object: null means left out."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if inner is not None}


def nulls_dropped(kind: Any, *, most: int) -> BeforeValidator:
    """A validator that drops nulls from a `dict` whose keys the client chooses, `most` at most."""

    def validate(value: Any) -> Any:
        # pydantic would validate all of them before it counts.
        if isinstance(value, dict) and len(value) > most:
            lengths = {"field_type": "Dictionary", "max_length": most, "actual_length": len(value)}
            raise PydanticKnownError("too_long", lengths)
        return drop_nulls(value)

    return BeforeValidator(validate, json_schema_input_type=kind)


_MAX_PAIRS = 16
_StringPairs = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=_MAX_PAIRS),
]
Metadata = Annotated[_StringPairs, nulls_dropped(_StringPairs, most=_MAX_PAIRS)]


def _fail_fast(schema: Any) -> None:
    """Let each list in a schema end its check at the first wrong item: only that is reported, and
    there may be thousands."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for inner in schema.values():
            _fail_fast(inner)
    elif isinstance(schema, list):
        for inner in schema:
            _fail_fast(inner)


class StrictModel(BaseModel):
    """A request body or an object in one: no value is converted, no unknown key is accepted."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[BaseModel], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        _fail_fast(schema)
        return schema

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        data = drop_nulls(data)
        if isinstance(data, dict) and len(data) > _MANY_KEYS:
            return _first_unknown(data, cls)
        return data


def _first_unknown(data: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """The object with the first only of its unknown keys, since pydantic reports every one."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    unknown = (key for key in data if key not in known)
    kept = {*known, next(unknown, "")}
    return {key: value for key, value in data.items() if key in kept}


class BodyTooLargeError(InvalidRequestError):
    """The body has more bytes than a request may have."""


T = TypeVar("T")
BodyT = TypeVar("BodyT", bound=StrictModel)


def json_body(model: type[BodyT]) -> Callable[[Request], Awaitable[BodyT]]:
    """A FastAPI dependency that parses the request's JSON body as a `model`."""

    async def parse(request: Request) -> BodyT:
        _require_json(request.headers.get("content-type", ""))
        stream = body_stream(request, MAX_JSON_BYTES)
        body = b"".join([chunk async for chunk in stream])
        if len(body) <= _PARSED_INLINE_BYTES:
            return parse_json(body, model)
        threads: FairThreads = request.app.state.parsing_threads
        return await threads.run(
            request.scope["caller"].project,
            lambda: parse_large_json(body, model),
        )

    parse.body_model = model  # type: ignore[attr-defined]  # what the API's description shows
    return parse


def _require_json(content_type: str) -> None:
    """Refuse a media type other than JSON.

    No header at all counts as JSON, and so does curl's default: OpenAI's own examples of uploads
    and permissions send that.
    """
    kind = content_type.partition(";")[0].strip().lower()
    unspecified = kind in ("", "application/x-www-form-urlencoded")
    if not unspecified and kind != "application/json" and not kind.endswith("+json"):
        raise InvalidRequestError(
            f"Unsupported content type: {_display(kind)}. This endpoint reads JSON. Send the "
            "header Content-Type: application/json.",
            code="unsupported_content_type",
        )


class _OneByOne:
    """Calls functions one at a time, with pauses between them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paused_until = 0.0

    def call(self, function: Callable[[], T]) -> T:
        with self._lock:
            time.sleep(max(0.0, self._paused_until - time.monotonic()))
            began = time.thread_time()
            try:
                return function()
            finally:
                took = time.thread_time() - began
                self._paused_until = time.monotonic() + _PAUSE * took


_large_bodies = _OneByOne()


def parse_large_json(body: bytes, model: type[BodyT]) -> BodyT:
    """As `parse_json`, in a thread: large bodies wait for one another, and for others' work."""
    if len(body) <= _PARSED_INLINE_BYTES:
        return parse_json(body, model)
    return _large_bodies.call(lambda: parse_json(body, model))


def parse_json(body: bytes, model: type[BodyT]) -> BodyT:
    """Parse `body` as a `model`.

    Raises:
        InvalidRequestError: It is not JSON, or breaks a rule of the model.
    """
    if (found := excess(body)) is not None:
        raise InvalidRequestError(
            f"We could not parse the JSON body of your request: it has {found}. Send less in one "
            "request."
        )
    try:
        # Unlike the json module it refuses NaN, lone surrogates and unbounded nesting by itself.
        # Strings are not cached: different ones would take four times as long.
        data = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise InvalidRequestError(
            f"We could not parse the JSON body of your request: {error}. Send one JSON object "
            "with the header Content-Type: application/json."
        ) from None
    return validate(data, model)


def validate(data: Any, model: type[BodyT]) -> BodyT:
    """Validate `data` as a `model`.

    Raises:
        InvalidRequestError: It breaks a rule of the model.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise to_openai_error(error.errors()) from None


def body_stream(request: Request, maximum: int) -> AsyncGenerator[bytes, None]:
    """The chunks of a request's body, up to `maximum` bytes; see `limit_bytes`.

    Raises:
        InvalidRequestError: The body is compressed.
        BodyTooLargeError: The request says that it has more bytes.
    """
    encoding = request.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise InvalidRequestError(
            f"This server reads no compressed bodies, and this one has the header "
            f"Content-Encoding: {_display(encoding)}. Send it uncompressed, without that header.",
            code="unsupported_content_encoding",
        )
    size = int(request.headers.get("content-length", 0))
    if size > maximum:
        raise _body_too_large(maximum, str(size))
    return limit_bytes(request.stream(), maximum)


async def limit_bytes(stream: AsyncIterator[bytes], maximum: int) -> AsyncGenerator[bytes, None]:
    """The chunks of a body, up to `maximum` bytes.

    Raises:
        BodyTooLargeError: There are more.
    """
    size = 0
    try:
        async for chunk in stream:
            size += len(chunk)
            if size > maximum:
                raise _body_too_large(maximum, "more")
            yield chunk
    except ClientDisconnect:  # not an error of ours, and no client is left to read this
        raise InvalidRequestError("The request broke off before its end.") from None


def _body_too_large(maximum: int, size: str) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The body of this request may have at most {maximum} bytes, and it has {size}."
    )


def refuse(code: str | None, message: str, param: str | None = None) -> NoReturn:
    """Fail a model's own validator with OpenAI's `code` and this message.

    `param` is needed only where the fault is not at the validator's own path: with a leading dot
    it is relative to that path. In the message `{param}` stands for the full path.
    """
    context = {"message": message, "code": code, "param": param}
    raise PydanticCustomError("refused", "{message}", context)


def refuse_type(value: Any, expected: str) -> NoReturn:
    """Fail a validator of a value that has none of the types it may have."""
    message = f"expected {expected}, but got {type_name(value)} instead."
    refuse("invalid_type", f"Invalid type for '{{param}}': {message}")


def to_openai_error(errors: Sequence[Mapping[str, Any]], skip: int = 0) -> InvalidRequestError:
    """The first of pydantic's errors in OpenAI's words; `skip` steps of its path are left out."""
    error = errors[0]
    param = _param_path(error["loc"][skip:])
    if error["type"] == "refused":
        refusal = error["ctx"]
        place = refusal["param"] or ""
        param = f"{param}{place}".removeprefix(".") if place[:1] in ("", ".") else place
        message = refusal["message"].replace("{param}", param)
        return InvalidRequestError(message, code=refusal["code"], param=param or None)
    if error["type"] == "union_tag_invalid":
        param += ".type"  # the key that tells the members of our unions apart
    code, message = _code_and_message(error, param)
    return InvalidRequestError(message, code=code, param=param or None)


def _param_path(place: Sequence[str | int]) -> str:
    """The path of a parameter as OpenAI writes it: `messages[0].role`."""
    name = ""
    for step in place:
        if isinstance(step, int):
            name += f"[{step}]"
        elif not (step == "[key]" or step.startswith(UNION_TAG)):
            shown = truncated(step)
            name += f".{shown}" if name else shown
    return name


def _code_and_message(error: Mapping[str, Any], param: str) -> tuple[str, str]:
    kind, value, context = error["type"], error.get("input"), error.get("ctx", {})
    match kind:
        case "union_tag_invalid":
            supported = f"Supported values are: {context['expected_tags'].replace(UNION_TAG, '')}."
            value = context["tag"].removeprefix(UNION_TAG)
            return "invalid_value", f"Invalid value for '{param}': {_display(value)}. {supported}"
        case "missing":
            return "missing_required_parameter", f"Missing required parameter: '{param}'."
        case "extra_forbidden":
            return "unknown_parameter", _unknown_parameter(param)
        case "literal_error":
            supported = f"Supported values are: {context['expected']}."
            return "invalid_value", f"Invalid value for '{param}': {_display(value)}. {supported}"
        case "less_than_equal" | "greater_than_equal" | "greater_than":
            return _out_of_range(kind, value, context, param)
        case "string_too_long" | "string_too_short" | "too_long" | "too_short":
            return _wrong_length(kind, value, context, param)
    if expected := _EXPECTED_TYPES.get(kind.split("_")[0]):
        where = f"Invalid type for '{param}'" if param else "Invalid body"
        message = f"{where}: expected {expected}, but got {type_name(value)} instead."
        return "invalid_type", message
    return kind, error["msg"]


def _unknown_parameter(param: str) -> str:
    # OpenAI words the two differently, and clients match on the top-level one.
    nested = "." in param or "[" in param
    return (
        f"Unknown parameter: '{param}'."
        if nested
        else f"Unrecognized request argument supplied: {param}"
    )


def _out_of_range(kind: str, value: Any, context: Mapping[str, Any], param: str) -> tuple[str, str]:
    key, sign, side, code = {
        "less_than_equal": ("le", "<=", "above maximum", "above_max"),
        "greater_than_equal": ("ge", ">=", "below minimum", "below_min"),
        "greater_than": ("gt", ">", "below minimum", "below_min"),
    }[kind]
    bound = context[key]
    number = "decimal" if isinstance(bound, float) else "integer"
    shown = f"{bound:g}" if isinstance(bound, float) else bound
    return f"{number}_{code}_value", (
        f"Invalid '{param}': {number} {side} value. "
        f"Expected a value {sign} {shown}, but got {_display(value)} instead."
    )


def _wrong_length(kind: str, value: Any, context: Mapping[str, Any], param: str) -> tuple[str, str]:
    article, noun = _TYPE_NAMES[type(value)].split()
    if "min_length" in context:
        least = context["min_length"]
        return f"empty_{noun}", (
            f"Invalid '{param}': empty {noun}. Expected {article} {noun} with minimum length "
            f"{least}, but got an empty {noun} instead."
        )
    most = context["max_length"]
    return f"{noun}_above_max_length", (
        f"Invalid '{param}': {noun} too long. Expected {article} {noun} with maximum length "
        f"{most}, but got {article} {noun} with length {len(value)} instead."
    )


_EXPECTED_TYPES = {
    "int": "an integer",
    "float": "a decimal",
    "finite": "a finite decimal",
    "string": "a string",
    "bool": "a boolean",
    "list": "an array",
    "dict": "an object",
    "model": "an object",
    "is": "a file",  # is_instance_of: the one field of a form that is not text
}

_TYPE_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def type_name(value: Any) -> str:
    """The name of a JSON value's type, with its article."""
    return _TYPE_NAMES.get(type(value), "something else")


def _display(value: Any) -> str:
    """A value as a message shows it, truncated."""
    if isinstance(value, str):
        value = value[:_SHOWN]  # the rest need not be escaped
    return truncated(repr(value) if isinstance(value, str | int | float) else type_name(value))


def truncated(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
