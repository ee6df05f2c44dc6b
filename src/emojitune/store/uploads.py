"""Uploads in parts: the parts wait as files of their own until one file is made of them."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row, func, insert, select

from emojitune.disk import disk_errors, make_private_folder, open_private
from emojitune.errors import InvalidRequestError, InvalidStateError, NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.files import (
    FileStore,
    FileTooLargeError,
    StoredFile,
    chunks_of,
)
from emojitune.store.ids import new_id
from emojitune.store.scope import EVERY_PROJECT, Project, ScopedTable

_uploads, _parts = tables.uploads, tables.upload_parts

MAX_UPLOAD_BYTES = 8 * 1024**3
MAX_PART_BYTES = 64 * 1024**2
_LIFETIME_SECONDS = 3600
_ADD = "Parts can be added only to an upload"
_COMPLETE = "Only an upload can be completed"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that arrives in parts. `file_seconds` is the lifetime of the completed file."""

    id: str
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    bytes: int
    status: str
    file_seconds: int | None
    file_id: str | None


@dataclass(frozen=True, slots=True)
class UploadPart:
    """A part of an upload; its place is given when the upload is completed."""

    id: str
    upload_id: str
    created_at: int
    bytes: int


class UploadStore:
    """A project's uploads as rows of `database`, their parts in `directory`.

    Args:
        files: The store of the same project's files, for completed uploads.
    """

    def __init__(
        self, database: Database, project: Project, directory: Path, files: FileStore
    ) -> None:
        self._database = database
        self._rows = ScopedTable(_uploads, project)
        self._directory = directory
        self._files = files

    def create(
        self, *, filename: str, purpose: str, bytes: int, file_seconds: int | None = None
    ) -> Upload:
        """Create an upload, which expires in an hour."""
        self.sweep()
        created_at = self._database.now()
        upload = Upload(
            id=new_id("upload_"),
            created_at=created_at,
            expires_at=created_at + _LIFETIME_SECONDS,
            filename=filename,
            purpose=purpose,
            bytes=bytes,
            status="pending",
            file_seconds=file_seconds,
            file_id=None,
        )
        with self._database.transaction() as connection:
            connection.execute(self._rows.insert(asdict(upload)))
        return upload

    def get(self, upload_id: str) -> Upload:
        """The upload of this id.

        Raises:
            NotFoundError: There is none.
        """
        with self._database.read() as connection:
            return self._get(connection, upload_id)

    def add_part(self, upload_id: str, chunks: Iterable[bytes] | BinaryIO) -> UploadPart:
        """Store a part; others may arrive at the same time.

        Raises:
            InvalidStateError: The upload is no longer pending.
            FileTooLargeError: The part, or the upload with it, has too many bytes.
        """
        _require_pending(self.get(upload_id), _ADD)
        part_id = new_id("part_")
        path = self._path(upload_id, part_id)
        with disk_errors(path.parent):
            make_private_folder(path.parent)
        try:
            with self._while_pending(upload_id, _ADD):
                size = _write(path, chunks)
            part = UploadPart(part_id, upload_id, self._database.now(), size)
            with self._database.transaction() as connection:
                upload = self._get(connection, upload_id)
                _require_pending(upload, _ADD)
                _require_room(connection, upload_id, size)
                connection.execute(insert(_parts).values(asdict(part)))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return part

    def complete(
        self,
        upload_id: str,
        part_ids: Sequence[str],
        *,
        md5: str | None = None,
        check: Callable[[Path], None] = lambda _path: None,
    ) -> tuple[Upload, StoredFile]:
        """Make a file of the parts in this order; if `check` or a checksum fails, nothing changes.

        Raises:
            InvalidStateError: The upload is no longer pending.
            InvalidRequestError: A part is not the upload's, or the bytes are not those announced.
        """
        upload = self.get(upload_id)
        _require_pending(upload, _COMPLETE)
        self._require_complete(upload, part_ids)
        digest = hashlib.md5(usedforsecurity=False)

        def complete_with(connection: Connection, stored: StoredFile) -> None:
            self._end(connection, upload_id, "completed", _COMPLETE, stored.id)

        with self._files.receive(self._content(upload_id, part_ids, digest)) as incoming:
            if md5 is not None and md5.lower() != digest.hexdigest():
                raise InvalidRequestError(
                    f"The parts in this order have the MD5 {digest.hexdigest()}, and 'md5' says "
                    f"{md5}. Check the order of 'part_ids', or upload the parts again.",
                    param="md5",
                )
            check(incoming.path)
            stored = self._files.keep(
                incoming,
                filename=upload.filename,
                purpose=upload.purpose,
                expires_after=upload.file_seconds,
                then=complete_with,
            )
        self._delete_parts(upload_id)
        return self.get(upload_id), stored

    def cancel(self, upload_id: str) -> Upload:
        """Cancel an upload, and delete its parts.

        Raises:
            InvalidStateError: It has ended already.
        """
        with self._database.transaction() as connection:
            self._end(connection, upload_id, "cancelled", "Only an upload can be cancelled")
        self._delete_parts(upload_id)
        return self.get(upload_id)

    def sweep(self) -> None:
        """Mark expired uploads of every project, and delete parts of uploads that have ended."""
        # Listed first: the folder of an upload that is created meanwhile is not among them.
        folders = list(self._directory.iterdir()) if self._directory.exists() else []
        every_project = ScopedTable(_uploads, EVERY_PROJECT)
        pending = _uploads.c.status == "pending"
        with self._database.transaction() as connection:
            expired = every_project.update().where(
                pending, _uploads.c.expires_at <= self._database.now()
            )
            connection.execute(expired.values(status="expired"))
            pending_ids = set(
                connection.scalars(every_project.select(_uploads.c.id).where(pending))
            )
        for folder in folders:
            if folder.name not in pending_ids:
                self._delete_parts(folder.name)

    def _require_complete(self, upload: Upload, part_ids: Sequence[str]) -> None:
        query = select(_parts.c.id, _parts.c.bytes).where(_parts.c.upload_id == upload.id)
        with self._database.read() as connection:
            sizes = {row.id: row.bytes for row in connection.execute(query)}
        seen: set[str] = set()
        for part_id in part_ids:
            if part_id not in sizes or part_id in seen:
                fault = "is named twice" if part_id in sizes else f"is no part of {upload.id}"
                raise InvalidRequestError(
                    f"'part_ids' names each part of the upload once, in the order of the content, "
                    f"and '{part_id}' {fault}.",
                    code="invalid_value",
                    param="part_ids",
                )
            seen.add(part_id)
        total = sum(sizes[part_id] for part_id in part_ids)
        if total != upload.bytes:
            raise InvalidRequestError(
                f"The parts must have as many bytes as the upload was created for: {upload.bytes}. "
                f"These have {total}. Add what is missing, or create a new upload.",
                param="part_ids",
            )

    def _content(self, upload_id: str, part_ids: Sequence[str], digest: Any) -> Iterator[bytes]:
        for part_id in part_ids:
            with self._while_pending(upload_id, _COMPLETE):
                part = self._path(upload_id, part_id).open("rb")
            with part:
                for chunk in chunks_of(part):
                    digest.update(chunk)
                    yield chunk

    @contextmanager
    def _while_pending(self, upload_id: str, rule: str) -> Iterator[None]:
        """Explain a missing part: its upload was completed or cancelled meanwhile."""
        try:
            yield
        except FileNotFoundError:
            _require_pending(self.get(upload_id), rule)
            raise

    def _path(self, upload_id: str, part_id: str) -> Path:
        return self._directory / upload_id / part_id

    def _delete_parts(self, upload_id: str) -> None:
        # A part that is being written at this moment finds out in its transaction.
        shutil.rmtree(self._directory / upload_id, ignore_errors=True)

    def _get(self, connection: Connection, upload_id: str) -> Upload:
        query = self._rows.select().where(_uploads.c.id == upload_id)
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFoundError(f"No such Upload object: {upload_id}", param="upload_id")
        return _upload(row, self._database.now())

    def _end(
        self,
        connection: Connection,
        upload_id: str,
        status: str,
        rule: str,
        file_id: str | None = None,
    ) -> None:
        _require_pending(self._get(connection, upload_id), rule)
        ended = self._rows.update().where(_uploads.c.id == upload_id)
        connection.execute(ended.values(status=status, file_id=file_id))


def _upload(row: Row[Any], now: int) -> Upload:
    fields = dict(row._mapping)
    del fields["number"], fields["project"]
    upload = Upload(**fields)
    expired = upload.status == "pending" and upload.expires_at <= now
    return replace(upload, status="expired") if expired else upload


def _require_pending(upload: Upload, rule: str) -> None:
    if upload.status != "pending":
        raise InvalidStateError(
            f"{rule} that is pending, and {upload.id} is {upload.status}. Create a new one."
        )


def _require_room(connection: Connection, upload_id: str, size: int) -> None:
    query = select(func.sum(_parts.c.bytes)).where(_parts.c.upload_id == upload_id)
    total = (connection.scalar(query) or 0) + size
    if total > MAX_UPLOAD_BYTES:
        raise FileTooLargeError(
            f"The parts of an upload may have at most {MAX_UPLOAD_BYTES} bytes, and with this one "
            f"they have {total}.",
            param="data",
        )


def _write(path: Path, chunks: Iterable[bytes] | BinaryIO) -> int:
    """Write and count; the bytes are synced to the disk when this returns."""
    size = 0
    with disk_errors(path), open_private(path) as target:
        for chunk in chunks_of(chunks):
            size += len(chunk)
            if size > MAX_PART_BYTES:
                raise FileTooLargeError(
                    f"A part may have at most {MAX_PART_BYTES} bytes, and this one has more. "
                    "Send it in smaller parts.",
                    param="data",
                )
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return size
