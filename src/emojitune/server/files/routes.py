"""Files: create, list, retrieve, delete, content."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from openai.types import FileDeleted, FileObject
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from emojitune.dataset.upload_check import check_first_line
from emojitune.errors import InvalidRequestError
from emojitune.server.context import Context
from emojitune.server.files.requests import FileForm, lifetime_seconds
from emojitune.server.http.json_responses import json_response, page_response
from emojitune.server.http.multipart import form_body
from emojitune.server.http.query_params import MAX_LIMIT, After, FileLimit, Order
from emojitune.store.files import StoredFile

router = APIRouter(prefix="/v1/files")

_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
_CHUNK_BYTES = 256 * 1024


_Form = Annotated[FileForm, Depends(form_body(FileForm, lambda settings: settings.max_file_bytes))]


@router.post("")
def create(form: _Form, context: Context) -> Response:
    """Upload a file; of a training file only the first line is checked here."""
    if not form.file.size:
        raise InvalidRequestError(
            "A file must not be empty, and this one has 0 bytes.", param="file"
        )
    seconds = lifetime_seconds(form.purpose, form.expires_after)
    with context.stores.files.receive(
        form.file.file, max_bytes=context.settings.max_file_bytes
    ) as incoming:
        check_upload(form.purpose, incoming.path)
        stored = context.stores.files.keep(
            incoming,
            filename=PurePath(form.file.filename or "").name or "upload",
            purpose=form.purpose,
            expires_after=seconds,
        )
    return json_response(file_object(stored))


@router.get("")
def list_files(
    context: Context,
    purpose: Annotated[str | None, Query(description="Only files of this purpose.")] = None,
    after: After = None,
    limit: FileLimit = MAX_LIMIT,
    order: Order = "desc",
) -> Response:
    """List the files."""
    page = context.stores.files.list(purpose, after, limit, order)
    return page_response([file_object(stored) for stored in page.items], has_more=page.has_more)


@router.get("/{file_id}")
def retrieve(file_id: str, context: Context) -> Response:
    """Retrieve a file."""
    return json_response(file_object(context.stores.files.get(file_id)))


@router.delete("/{file_id}")
def delete(file_id: str, context: Context) -> Response:
    """Delete a file; a job or a batch that still needs it fails, and says so."""
    context.stores.files.delete(file_id)
    return json_response(FileDeleted(id=file_id, object="file", deleted=True))


@router.get("/{file_id}/content")
def content(file_id: str, request: Request, context: Context) -> Response:
    """Download the content of a file."""
    stored = context.stores.files.get(file_id)
    return _FileDownload(stored, context.stores.files.open(file_id), request.headers)


class _FileDownload(StreamingResponse):
    """Sends an open file, or the byte range of it with which an interrupted download resumes.

    A range that is not a single part of the file is ignored, as HTTP allows: all of it is sent.
    """

    def __init__(self, stored: StoredFile, file: BinaryIO, request_headers: Headers) -> None:
        etag = f'"{stored.sha256}"'
        part = (
            _byte_range(request_headers, stored.bytes)
            if request_headers.get("if-range", etag) == etag
            else None
        )
        first, end = part or (0, stored.bytes)
        headers = {
            "accept-ranges": "bytes",
            "content-disposition": _content_disposition(stored.filename),
            "content-length": str(end - first),
            "etag": etag,
        }
        if part:
            headers["content-range"] = f"bytes {first}-{end - 1}/{stored.bytes}"
        status = 206 if part else 200
        super().__init__(_chunks(file, first, end), status, headers, "application/octet-stream")
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


def _chunks(file: BinaryIO, first: int, end: int) -> Iterator[bytes]:
    file.seek(first)
    while chunk := file.read(min(end - file.tell(), _CHUNK_BYTES)):
        yield chunk


def check_upload(purpose: str, path: Path) -> None:
    """Check the content of a file before it is stored.

    Raises:
        DatasetError: It is a training file, and not JSON lines.
    """
    if purpose == "fine-tune":
        with path.open("rb") as file:
            check_first_line(file)


def file_object(stored: StoredFile) -> FileObject:
    """A file as OpenAI's object."""
    # OpenAI accepts the purpose "evals", but its own response type does not know it.
    build = FileObject.construct if stored.purpose == "evals" else FileObject
    fields: dict[str, Any] = {
        "id": stored.id,
        "object": "file",
        "bytes": stored.bytes,
        "created_at": stored.created_at,
        "expires_at": stored.expires_at,
        "filename": stored.filename,
        "purpose": stored.purpose,
        "status": stored.status,
        "status_details": stored.status_details,
    }
    return build(**fields)


def _byte_range(request_headers: Headers, size: int) -> tuple[int, int] | None:
    """The start and end of the requested range, if a file of this size has it."""
    match = _RANGE.fullmatch(request_headers.get("range", ""))
    if match is None:
        return None
    first, last = int(match[1]), int(match[2] or size)
    return (first, min(last + 1, size)) if first < size and first <= last else None


def _content_disposition(filename: str) -> str:
    """The header with an ASCII name for any client, and the exact name where the two differ."""
    filename = filename.replace("/", "_")  # the name of an upload in parts may contain folders
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "_" for c in filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{exact}'
