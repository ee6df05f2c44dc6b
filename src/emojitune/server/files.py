"""Files: create, list, retrieve, delete, content."""

import re
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse
from openai.types import FileDeleted, FileObject
from pydantic import AfterValidator
from starlette.types import Receive, Scope, Send

from emojitune.dataset.arrival import check_first_line
from emojitune.errors import InvalidRequestError
from emojitune.server.file_requests import FileForm, lifetime
from emojitune.server.forms import form_body
from emojitune.server.replies import page_listing, reply
from emojitune.server.requests import refuse
from emojitune.server.services import Shared
from emojitune.store.files import StoredFile
from emojitune.store.ids import now

router = APIRouter(prefix="/v1/files")

_MOST = 10_000
_RANGE = re.compile(rb"bytes=(\d{1,18})-(\d{0,18})")


def _in_range(limit: int) -> int:
    if not 1 <= limit <= _MOST:
        code = "integer_below_min_value" if limit < 1 else "integer_above_max_value"
        refuse(code, f"limit must be between 1 and {_MOST}.")
    return limit


_Limit = Annotated[
    int,
    AfterValidator(_in_range),
    Query(
        description="How many files a page has at most.",
        json_schema_extra={"minimum": 1, "maximum": _MOST},
    ),
]
_Form = Annotated[FileForm, Depends(form_body(FileForm, lambda settings: settings.max_file_bytes))]


@router.post("")
def create(form: _Form, services: Shared) -> Response:
    """Upload a file; of a training file only the first line is looked at here."""
    if not form.file.size:
        raise InvalidRequestError(
            "A file must not be empty, and this one has 0 bytes.", param="file"
        )
    seconds = lifetime(form.purpose, form.expires_after)
    with services.files.receive(
        form.file.file, max_bytes=services.settings.max_file_bytes
    ) as incoming:
        check_arrival(form.purpose, incoming.path)
        stored = services.files.keep(
            incoming,
            filename=PurePath(form.file.filename or "").name or "upload",
            purpose=form.purpose,
            expires_at=seconds and now() + seconds,
        )
    return reply(file_object(stored))


@router.get("")
def list_files(
    services: Shared,
    purpose: Annotated[str | None, Query(description="Only files of this purpose.")] = None,
    after: Annotated[str | None, Query(description="The last file of the page before.")] = None,
    limit: _Limit = _MOST,
    order: Annotated[
        Literal["asc", "desc"], Query(description="Whether the oldest or the newest come first.")
    ] = "desc",
) -> Response:
    """List the files."""
    page = services.files.list(purpose, after, limit, order)
    return page_listing(
        [file_object(stored) for stored in page.items],
        [stored.id for stored in page.items],
        page.has_more,
    )


@router.get("/{file_id}")
def retrieve(file_id: str, services: Shared) -> Response:
    """Show a file."""
    return reply(file_object(services.files.get(file_id)))


@router.delete("/{file_id}")
def delete(file_id: str, services: Shared) -> Response:
    """Delete a file; a job or a batch that still needs it fails, and says so."""
    services.files.delete(file_id)
    return reply(FileDeleted(id=file_id, object="file", deleted=True))


@router.get("/{file_id}/content")
def content(file_id: str, services: Shared) -> Response:
    """Send the bytes of a file."""
    stored = services.files.get(file_id)
    return _Download(
        services.files.path(file_id),
        media_type="application/octet-stream",
        headers={"content-disposition": _attachment(stored.filename)},
    )


class _Download(FileResponse):
    """Goes on with a download from where it broke off, and otherwise sends the whole file.

    By itself Starlette refuses the odd ranges, as plain text; they may as well be passed over.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = Path(self.path).stat().st_size
        headers = [
            (name, value)
            for name, value in scope["headers"]
            if name != b"range" or _in_file(value, size)
        ]
        await super().__call__({**scope, "headers": headers}, receive, send)


def check_arrival(purpose: str, path: Path) -> None:
    """What is asked of a file before it is kept.

    Raises:
        DatasetError: A training file that is no JSON lines.
    """
    if purpose == "fine-tune":
        with path.open("rb") as file:
            check_first_line(file)


def file_object(stored: StoredFile) -> FileObject:
    """A file as OpenAI shows it."""
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


def _in_file(asked: bytes, size: int) -> bool:
    """Whether a Range header asks for one part that a file of this size has."""
    found = _RANGE.fullmatch(asked)
    if found is None:
        return False
    first, last = int(found[1]), int(found[2] or size)
    return first < size and first <= last


def _attachment(filename: str) -> str:
    """The header with a name that any client reads, and the exact one for those that know how."""
    filename = filename.replace("/", "_")  # an upload in parts may have folders in its name
    plain = "".join(c if " " <= c <= "~" and c not in '"\\' else "_" for c in filename)
    exact = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='')}"
    return f'attachment; filename="{plain}"{exact}'
