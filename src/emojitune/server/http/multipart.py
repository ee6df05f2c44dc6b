"""Multipart forms: read in any field order and validated by strict models, as JSON bodies are.

Knows how a form is read, not which fields an endpoint has.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Request
from pydantic import InstanceOf, WithJsonSchema
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from emojitune.disk import disk_errors
from emojitune.errors import InvalidRequestError
from emojitune.server.context import Context
from emojitune.server.http.json_bodies import StrictModel, body_stream, validate
from emojitune.settings import Settings

MEDIA_TYPE = "multipart/form-data"
_MAX_FIELD_BYTES = 64 * 1024  # of a form without its file
_MAX_FIELDS = 20
_ENCODED_NAME = re.compile(rb"\bfilename\*\s*=\s*utf-8'[^']*'([^\s;]+)", re.IGNORECASE)
_PLAIN_NAME = re.compile(rb"\bfilename\s*=", re.IGNORECASE)

UploadedFile = Annotated[
    InstanceOf[UploadFile], WithJsonSchema({"type": "string", "format": "binary"})
]

FormT = TypeVar("FormT", bound=StrictModel)


def form_body(
    model: type[FormT], max_file_bytes: Callable[[Settings], int]
) -> Callable[[Request, Context], AsyncIterator[FormT]]:
    """A FastAPI dependency that parses the request's form as a `model`; its file is on the disk."""

    async def parse(request: Request, context: Context) -> AsyncIterator[FormT]:
        async with _parse_form(
            request, max_file_bytes(context.settings) + _MAX_FIELD_BYTES
        ) as form:
            yield validate(_unflatten(form), model)

    parse.body_model = model  # type: ignore[attr-defined]  # what the API's description shows
    parse.media_type = MEDIA_TYPE  # type: ignore[attr-defined]
    return parse


class _CompleteFormParser(MultiPartParser):
    """Starlette's parser, plus two things that it lacks.

    A form that breaks off before its last boundary is an error. A file may have a percent-encoded
    name (`filename*`), as `requests` long sent all non-ASCII ones; Starlette reads it as text.
    """

    def __init__(self, headers: Headers, stream: AsyncIterator[bytes], **limits: int) -> None:
        super().__init__(headers, self._to_the_end(stream), **limits)
        self._ended = False

    def on_headers_finished(self) -> None:
        part = self._current_part
        if part.content_disposition is not None:
            part.content_disposition = _decode_filename(part.content_disposition)
        super().on_headers_finished()

    def on_end(self) -> None:
        self._ended = True

    async def _to_the_end(self, stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in stream:
            yield chunk
        if not self._ended:
            raise MultiPartException("It breaks off before its last boundary.")


@asynccontextmanager
async def _parse_form(request: Request, max_bytes: int) -> AsyncIterator[FormData]:
    """The multipart form of a request; its temporary file is deleted when the block ends."""
    if not request.headers.get("content-type", "").lower().startswith(MEDIA_TYPE):
        raise InvalidRequestError(
            f"This endpoint takes a form with a file in it: send it as {MEDIA_TYPE}."
        )
    stream = body_stream(request, max_bytes)
    parser = _CompleteFormParser(request.headers, stream, max_files=1, max_fields=_MAX_FIELDS)
    try:
        with disk_errors(Path(gettempdir())):  # the folder of large temporary files
            form = await parser.parse()
    except MultiPartException as error:
        raise InvalidRequestError(f"The form could not be read: {error.message}") from error
    except UnicodeError:
        raise _undecodable_text() from None
    try:
        _require_unicode(form)
        yield form
    finally:
        await form.close()


def _decode_filename(disposition: bytes) -> bytes:
    """Decode `filename*=utf-8''%C3%A4` to `filename="ä"`, unless there is a plain name too."""
    encoded = _ENCODED_NAME.search(disposition)
    if encoded is None or _PLAIN_NAME.search(disposition):
        return disposition
    name = unquote_to_bytes(encoded[1]).replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return (
        disposition[: encoded.start()] + b'filename="' + name + b'"' + disposition[encoded.end() :]
    )


def _require_unicode(form: FormData) -> None:
    """Refuse lone surrogates, which some charsets decode to and no store can encode."""
    for name, value in form.multi_items():
        text = value if isinstance(value, str) else value.filename or ""
        try:
            (name + text).encode()
        except UnicodeError:
            raise _undecodable_text() from None


def _undecodable_text() -> InvalidRequestError:
    return InvalidRequestError(
        "The form's text is not what the charset of its Content-Type says. Send it in UTF-8."
    )


def _unflatten(form: FormData) -> dict[str, Any]:
    """Nest bracketed names: `expires_after[seconds]=1` is `{"expires_after": {"seconds": "1"}}`."""
    nested: dict[str, Any] = {}
    for name, value in form.multi_items():
        outer, bracket, inner = name.partition("[")
        group: Any = nested.setdefault(outer, {}) if bracket else nested
        key = inner.rstrip("]") if bracket else name
        if not isinstance(group, dict) or key in group:
            raise InvalidRequestError(
                f"A form has each field once, and this one has '{name}' twice.", param=outer
            )
        group[key] = value
    return nested
