"""Uploads in parts: create, add a part, complete, cancel."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from openai.types import Upload as UploadObject
from openai.types.uploads import UploadPart as UploadPartObject

from emojitune.errors import InvalidRequestError, InvalidStateError
from emojitune.server.context import Services, Shared
from emojitune.server.files.requests import CompleteUpload, CreateUpload, PartForm, lifetime
from emojitune.server.files.routes import check_arrival, file_object
from emojitune.server.http.idempotency import attempt_number
from emojitune.server.http.json_bodies import json_body
from emojitune.server.http.json_responses import reply
from emojitune.server.http.multipart import form_body
from emojitune.store.files import StoredFile
from emojitune.store.uploads import MAX_PART_BYTES, Upload

router = APIRouter(prefix="/v1/uploads")


@router.post("")
def create(
    body: Annotated[CreateUpload, Depends(json_body(CreateUpload))], services: Shared
) -> Response:
    """Announce a file that is sent in parts within an hour."""
    upload = services.uploads.create(
        filename=body.filename,
        purpose=body.purpose,
        bytes=body.bytes,
        file_seconds=lifetime(body.purpose, body.expires_after),
    )
    return reply(_upload_object(upload))


@router.post("/{upload_id}/parts")
def add_part(
    upload_id: str,
    form: Annotated[PartForm, Depends(form_body(PartForm, lambda _settings: MAX_PART_BYTES))],
    services: Shared,
) -> Response:
    """Add a part; several may arrive at the same time, in any order."""
    if not form.data.size:
        raise InvalidRequestError("A part must not be empty, and this one is.", param="data")
    part = services.uploads.add_part(upload_id, form.data.file)
    return reply(
        UploadPartObject(
            id=part.id,
            object="upload.part",
            created_at=part.created_at,
            upload_id=part.upload_id,
        )
    )


@router.post("/{upload_id}/complete")
def complete(
    request: Request,
    upload_id: str,
    body: Annotated[CompleteUpload, Depends(json_body(CompleteUpload))],
    services: Shared,
) -> Response:
    """Make a file of the parts. A client that repeats this request because its connection was cut
    is told the same again."""
    purpose = services.uploads.get(upload_id).purpose
    try:
        upload, stored = services.uploads.complete(
            upload_id, body.part_ids, md5=body.md5, check=partial(check_arrival, purpose)
        )
    except InvalidStateError:
        if (again := _repeated(request, upload_id, "completed", services)) is None:
            raise
        return again
    return reply(_upload_object(upload, stored))


@router.post("/{upload_id}/cancel")
def cancel(request: Request, upload_id: str, services: Shared) -> Response:
    """Give an upload up; no parts can be added any more."""
    try:
        return reply(_upload_object(services.uploads.cancel(upload_id)))
    except InvalidStateError:
        if (again := _repeated(request, upload_id, "cancelled", services)) is None:
            raise
        return again


def _repeated(request: Request, upload_id: str, status: str, services: Services) -> Response | None:
    """The answer that a client did not hear, and repeats its request for; None if it is no
    repetition, or the upload did not end in this way."""
    upload = services.uploads.get(upload_id)
    if not attempt_number(request) or upload.status != status:
        return None
    stored = services.files.get(upload.file_id) if upload.file_id else None
    return reply(_upload_object(upload, stored))


def _upload_object(upload: Upload, stored: StoredFile | None = None) -> UploadObject:
    # `construct`: a file for "evals" is none of the purposes that OpenAI's own type knows.
    return UploadObject.construct(
        id=upload.id,
        object="upload",
        bytes=upload.bytes,
        created_at=upload.created_at,
        expires_at=upload.expires_at,
        filename=upload.filename,
        purpose=upload.purpose,
        status=upload.status,
        file=stored and file_object(stored),
    )
