"""Uploaded and produced files: one row each, the bytes kept once under their SHA-256.

Projects with the same bytes share them; only the rows belong to a project.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from sqlalchemy import ColumnElement, Connection, Row, or_

from emojitune.disk import disk_errors, fsync, make_private_folder, open_private
from emojitune.errors import InvalidRequestError, NotFoundError, StorageError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.ids import new_id
from emojitune.store.pagination import Order, Page, read_page
from emojitune.store.scope import EVERY_PROJECT, Project, ScopedTable

_files = tables.files
_every_project = ScopedTable(_files, EVERY_PROJECT)
_CHUNK = 1024 * 1024
_ABANDONED_SECONDS = 24 * 3600  # no upload is received for longer than this


class FileTooLargeError(InvalidRequestError):
    """More bytes than a file may have."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as the API shows it; its bytes are stored under their `sha256`."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str
    status_details: str | None
    expires_at: int | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Incoming:
    """Bytes received onto the disk that belong to no file yet."""

    path: Path
    bytes: int
    sha256: str


class FileStore:
    """A project's files in `directory`, known by rows of `database`."""

    def __init__(self, database: Database, project: Project, directory: Path) -> None:
        self._database = database
        self._rows = ScopedTable(_files, project)
        self._directory = directory

    def add(
        self,
        chunks: Iterable[bytes] | BinaryIO,
        *,
        filename: str,
        purpose: str,
        max_bytes: int | None = None,
        expires_after: int | None = None,
    ) -> StoredFile:
        """Store the bytes of `chunks` as a file; after any failure nothing of it is left.

        Args:
            expires_after: Seconds until the file is deleted; None keeps it.

        Raises:
            FileTooLargeError: There are more than `max_bytes` of them.
        """
        with self.receive(chunks, max_bytes=max_bytes) as incoming:
            return self.keep(
                incoming, filename=filename, purpose=purpose, expires_after=expires_after
            )

    @contextmanager
    def receive(
        self, chunks: Iterable[bytes] | BinaryIO, *, max_bytes: int | None = None
    ) -> Iterator[Incoming]:
        """Write `chunks` to the disk; they are deleted at the end unless `keep` was called.

        Raises:
            FileTooLargeError: There are more than `max_bytes` of them.
        """
        with disk_errors(self._directory):
            make_private_folder(self._directory)
        self._delete_expired()
        path = self._directory / f"incoming-{secrets.token_hex(8)}"
        try:
            with disk_errors(path), open_private(path) as target:
                sha256, size = _copy(chunks_of(chunks), target, max_bytes)
            yield Incoming(path, size, sha256)
        finally:
            path.unlink(missing_ok=True)

    def keep(
        self,
        incoming: Incoming,
        *,
        filename: str,
        purpose: str,
        expires_after: int | None = None,
        then: Callable[[Connection, StoredFile], None] | None = None,
    ) -> StoredFile:
        """Make a file of received bytes.

        Args:
            expires_after: Seconds until the file is deleted; None keeps it.
            then: Called in the same transaction.
        """
        created_at = self._database.now()
        stored = StoredFile(
            id=new_id("file-"),
            bytes=incoming.bytes,
            created_at=created_at,
            filename=filename,
            purpose=purpose,
            status="processed",
            status_details=None,
            expires_at=expires_after and created_at + expires_after,
            sha256=incoming.sha256,
        )
        blob = self.blob(stored.sha256)
        make_private_folder(blob.parent)
        fsync(self._directory)
        with self._database.transaction() as connection:
            connection.execute(self._rows.insert(asdict(stored)))
            if then is not None:
                then(connection, stored)
            os.replace(incoming.path, blob)
            fsync(blob.parent)
        return stored

    def get(self, file_id: str) -> StoredFile:
        """The file of this id.

        Raises:
            NotFoundError: There is none, or it has expired.
        """
        with self._database.read() as connection:
            row = connection.execute(
                self._rows.select().where(_files.c.id == file_id, self._not_expired())
            ).one_or_none()
        if row is None:
            raise NotFoundError(f"No such File object: {file_id}", param="id")
        return _stored(row)

    def list(
        self,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = 10_000,
        order: Order = "desc",
    ) -> Page[StoredFile]:
        """Files, the newest first unless `order` is "asc"."""
        query = self._rows.select().where(self._not_expired())
        if purpose is not None:
            query = query.where(_files.c.purpose == purpose)
        with self._database.read() as connection:
            return read_page(
                connection, _files, query, _stored, after=after, limit=limit, order=order
            )

    def all(self) -> Sequence[StoredFile]:
        """Every file, expired ones too, the oldest first."""
        with self._database.read() as connection:
            return [_stored(row) for row in connection.execute(self._rows.select())]

    def blob(self, sha256: str) -> Path:
        """The path of the bytes with this digest."""
        return self._directory / sha256[:2] / sha256

    def delete(self, file_id: str) -> None:
        """Delete a file, and its bytes unless another file has the same."""
        self._remove([self.get(file_id)])

    def path(self, file_id: str) -> Path:
        """The path of a file's bytes, which must not be changed."""
        return self.blob(self.get(file_id).sha256)

    def sweep(self) -> None:
        """Delete expired files, and half-received ones of servers that died."""
        self._delete_expired()
        for path in self._directory.glob("incoming-*"):
            with suppress(FileNotFoundError):  # a training process has just kept it
                if path.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    path.unlink()

    def open(self, file_id: str) -> BinaryIO:
        """Open the bytes of a file, which stay readable even if it is deleted meanwhile.

        Raises:
            NotFoundError: There is no such file.
            StorageError: There is, and its bytes are gone.
        """
        path = self.path(file_id)
        try:
            return path.open("rb")
        except FileNotFoundError:
            self.get(file_id)  # deleted since it was looked up?
            raise StorageError(
                f"The bytes of {file_id} should be in {path}, and are not. Delete it and upload it "
                "again; `emojitune doctor` lists what else is missing.",
                code="file_damaged",
            ) from None

    def _remove(self, files: Sequence[StoredFile]) -> None:
        with self._database.transaction() as connection:
            ids = [stored.id for stored in files]
            connection.execute(_every_project.delete().where(_files.c.id.in_(ids)))
        # Only once the rows are surely deleted, and locked against an `add` of the same bytes.
        with self._database.transaction() as connection:
            for stored in files:
                if not _in_use(connection, stored.sha256):
                    self.blob(stored.sha256).unlink(missing_ok=True)

    def _delete_expired(self) -> None:
        with self._database.read() as connection:
            rows = connection.execute(_every_project.select().where(~self._not_expired())).all()
        if rows:
            self._remove([_stored(row) for row in rows])

    def _not_expired(self) -> ColumnElement[bool]:
        return or_(_files.c.expires_at.is_(None), _files.c.expires_at > self._database.now())


def _in_use(connection: Connection, sha256: str) -> bool:
    query = _every_project.select(_files.c.number).where(_files.c.sha256 == sha256).limit(1)
    return connection.scalar(query) is not None


def _stored(row: Row[Any]) -> StoredFile:
    fields = dict(row._mapping)
    del fields["number"], fields["project"]
    return StoredFile(**fields)


def chunks_of(source: Iterable[bytes] | BinaryIO) -> Iterator[bytes]:
    """The bytes of an open file or of an iterable, in chunks."""
    read = getattr(source, "read", None)
    if read is None:
        yield from source
        return
    while chunk := read(_CHUNK):
        yield chunk


def _copy(chunks: Iterator[bytes], target: IO[bytes], max_bytes: int | None) -> tuple[str, int]:
    """Write, hash and count; the bytes are synced to the disk when this returns."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if max_bytes is not None and size > max_bytes:
            raise FileTooLargeError(
                f"A file may have at most {max_bytes} bytes, and this one has more. Split it, or "
                "raise EMOJITUNE_MAX_FILE_BYTES.",
                param="file",
            )
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest(), size
