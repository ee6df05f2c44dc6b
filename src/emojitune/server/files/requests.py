"""The request bodies that create files: a form with the file in it, and uploads in parts."""

from typing import Annotated, Literal

from pydantic import Field

from emojitune.server.http.json_bodies import StrictModel
from emojitune.server.http.multipart import UploadedFile
from emojitune.server.http.unsupported import Ignored
from emojitune.store.uploads import MAX_UPLOAD_BYTES

Purpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]

_BATCH_SECONDS = 30 * 24 * 3600
_EXPIRY = "When the file expires; by default after 30 days for purpose batch, and never for others."
_NAME = "The name of the file."
_PURPOSE = "The purpose of the file."


class ExpiresAfter(StrictModel):
    """When a file expires, counted from its creation."""

    anchor: Literal["created_at"] = Field(
        description="The time from which the seconds are counted."
    )
    seconds: int = Field(ge=3600, le=2_592_000, description="How long the file lives.")


class FormExpiresAfter(ExpiresAfter):
    """`ExpiresAfter` in a form, where every value is text: the number is parsed."""

    seconds: int = Field(
        strict=False, ge=3600, le=2_592_000, description="How long the file lives."
    )


class FileForm(StrictModel):
    """The form of `POST /files`."""

    file: UploadedFile = Field(description="The file itself, with its name.")
    purpose: Purpose = Field(description=_PURPOSE)
    expires_after: FormExpiresAfter | None = Field(None, description=_EXPIRY)


class CreateUpload(StrictModel):
    """The body of `POST /uploads`."""

    filename: str = Field(min_length=1, description=_NAME)
    purpose: Purpose = Field(description=_PURPOSE)
    bytes: int = Field(ge=1, le=MAX_UPLOAD_BYTES, description="The size of all parts together.")
    mime_type: Annotated[str, Ignored("a file's type is determined when the file is used")] = Field(
        min_length=1, description="The media type of the file."
    )
    expires_after: ExpiresAfter | None = Field(None, description=_EXPIRY)


class PartForm(StrictModel):
    """The form of `POST /uploads/{upload_id}/parts`."""

    data: UploadedFile = Field(description="The bytes of the part: at most 64 MB.")


class CompleteUpload(StrictModel):
    """The body of `POST /uploads/{upload_id}/complete`."""

    part_ids: list[str] = Field(
        min_length=1, description="The ids of the parts, in the order of the content."
    )
    md5: str | None = Field(
        None, description="The MD5 of the entire content in hexadecimal digits, for verification."
    )


def lifetime_seconds(purpose: str, expires_after: ExpiresAfter | None) -> int | None:
    """The lifetime of a new file; None is unlimited."""
    if expires_after is not None:
        return expires_after.seconds
    return _BATCH_SECONDS if purpose == "batch" else None
