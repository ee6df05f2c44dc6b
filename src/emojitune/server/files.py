"""Files: create, list, retrieve, delete, content."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import PurePath
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from openai.types import FileDeleted, FileObject
from pydantic import Field, InstanceOf
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from emojitune.errors import InvalidRequestError
from emojitune.server.replies import listing, reply
from emojitune.server.requests import Body, Limit, bounded, validate
from emojitune.server.services import Shared
from emojitune.store.files import StoredFile
from emojitune.store.ids import now

router = APIRouter(prefix="/v1/files")

_BATCH_SECONDS = 30 * 24 * 3600
_FORM_BYTES = 64 * 1024  # what a form may weigh beside its file


class ExpiresAfter(Body):
    """When a file ends; in a form every value is text, so the number is read from it."""

    anchor: Literal["created_at"]
    seconds: int = Field(strict=False, ge=3600, le=2_592_000)


class FileForm(Body):
    """The fields of an upload, in whatever order they came."""

    file: InstanceOf[UploadFile]
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
    expires_after: ExpiresAfter | None = None

    @property
    def expires_at(self) -> int | None:
        if self.expires_after is not None:
            return now() + self.expires_after.seconds
        return now() + _BATCH_SECONDS if self.purpose == "batch" else None


@router.post("")
async def create(request: Request, services: Shared) -> Response:
    max_bytes = services.settings.max_file_bytes
    async with _form(request, max_bytes + _FORM_BYTES) as data:
        form = validate(_nested(data), FileForm)
        if not form.file.size:
            raise InvalidRequestError(
                "A file must not be empty, and this one has 0 bytes.", param="file"
            )

        def keep() -> StoredFile:
            return services.files.add(
                form.file.file,
                filename=PurePath(form.file.filename or "").name or "upload",
                purpose=form.purpose,
                max_bytes=max_bytes,
                expires_at=form.expires_at,
            )

        return reply(_file_object(await to_thread.run_sync(keep)))


@router.get("")
def list_files(
    services: Shared,
    purpose: str | None = None,
    after: str | None = None,
    limit: Limit = 10_000,
    order: Annotated[Literal["asc", "desc"], Query()] = "desc",
) -> Response:
    page = services.files.list(purpose, after, limit, order)
    ids = [stored.id for stored in page.items]
    return listing(
        [_file_object(stored) for stored in page.items],
        has_more=page.has_more,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


@router.get("/{file_id}")
def retrieve(file_id: str, services: Shared) -> Response:
    return reply(_file_object(services.files.get(file_id)))


@router.delete("/{file_id}")
def delete(file_id: str, services: Shared) -> Response:
    services.files.delete(file_id)
    return reply(FileDeleted(id=file_id, object="file", deleted=True))


@router.get("/{file_id}/content")
def content(file_id: str, services: Shared) -> Response:
    filename, path = services.files.get(file_id).filename, services.files.path(file_id)
    return FileResponse(path, media_type="application/octet-stream", filename=filename)


def _file_object(stored: StoredFile) -> FileObject:
    # OpenAI accepts the purpose "evals", yet its own type of the reply does not know it.
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


@asynccontextmanager
async def _form(request: Request, max_bytes: int) -> AsyncIterator[FormData]:
    """The multipart form of a request; large files wait on the disk until it is left."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRequestError(
            "A file is uploaded as a form: send 'file' and 'purpose' as multipart/form-data."
        )
    stream = bounded(request.stream(), max_bytes)
    try:
        form = await MultiPartParser(request.headers, stream, max_files=1, max_fields=10).parse()
    except MultiPartException as error:
        raise InvalidRequestError(f"The form could not be read: {error.message}") from error
    try:
        yield form
    finally:
        await form.close()


def _nested(form: FormData) -> dict[str, Any]:
    """`expires_after[seconds]=1` as `{"expires_after": {"seconds": "1"}}`."""
    nested: dict[str, Any] = {}
    for name, value in form.multi_items():
        outer, bracket, inner = name.partition("[")
        if bracket:
            group = nested.setdefault(outer, {})
            if isinstance(group, dict):
                group[inner.rstrip("]")] = value
        else:
            nested[name] = value
    return nested
