"""Uploads in parts: create, add a part, complete, cancel."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from openai.types import Upload as UploadObject
from openai.types.uploads import UploadPart as UploadPartObject

from emojitune.errors import InvalidRequestError, InvalidStateError
from emojitune.server.context import Context, RequestContext
from emojitune.server.files.requests import CompleteUpload, CreateUpload, PartForm, lifetime_seconds
from emojitune.server.files.routes import check_upload, file_object
from emojitune.server.http.idempotency import retry_count
from emojitune.server.http.json_bodies import json_body
from emojitune.server.http.json_responses import json_response
from emojitune.server.http.multipart import form_body
from emojitune.store.files import StoredFile
from emojitune.store.uploads import MAX_PART_BYTES, Upload

router = APIRouter(prefix="/v1/uploads")


@router.post("")
def create(
    body: Annotated[CreateUpload, Depends(json_body(CreateUpload))], context: Context
) -> Response:
    """Create an upload, whose parts are added within an hour."""
    upload = context.stores.uploads.create(
        filename=body.filename,
        purpose=body.purpose,
        bytes=body.bytes,
        file_seconds=lifetime_seconds(body.purpose, body.expires_after),
    )
    return json_response(_upload_object(upload))


@router.post("/{upload_id}/parts")
def add_part(
    upload_id: str,
    form: Annotated[PartForm, Depends(form_body(PartForm, lambda _settings: MAX_PART_BYTES))],
    context: Context,
) -> Response:
    """Add a part; several may be sent concurrently, in any order."""
    if not form.data.size:
        raise InvalidRequestError("A part must not be empty, and this one is.", param="data")
    part = context.stores.uploads.add_part(upload_id, form.data.file)
    return json_response(
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
    context: Context,
) -> Response:
    """Combine the parts into a file. A client that retries this request because its connection
    broke gets the same response again."""
    purpose = context.stores.uploads.get(upload_id).purpose
    try:
        upload, stored = context.stores.uploads.complete(
            upload_id, body.part_ids, md5=body.md5, check=partial(check_upload, purpose)
        )
    except InvalidStateError:
        if (replayed := _replayed(request, upload_id, "completed", context)) is None:
            raise
        return replayed
    return json_response(_upload_object(upload, stored))


@router.post("/{upload_id}/cancel")
def cancel(request: Request, upload_id: str, context: Context) -> Response:
    """Cancel an upload; no more parts can be added."""
    try:
        return json_response(_upload_object(context.stores.uploads.cancel(upload_id)))
    except InvalidStateError:
        if (replayed := _replayed(request, upload_id, "cancelled", context)) is None:
            raise
        return replayed


def _replayed(
    request: Request, upload_id: str, status: str, context: RequestContext
) -> Response | None:
    """The response of an earlier attempt that the client did not receive.

    None if this request is not a retry, or the upload has another status.
    """
    upload = context.stores.uploads.get(upload_id)
    if not retry_count(request) or upload.status != status:
        return None
    stored = context.stores.files.get(upload.file_id) if upload.file_id else None
    return json_response(_upload_object(upload, stored))


def _upload_object(upload: Upload, stored: StoredFile | None = None) -> UploadObject:
    # `construct`: OpenAI's own type does not know the purpose "evals".
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
