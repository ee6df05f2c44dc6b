import hashlib
import os
import threading
from pathlib import Path

import pytest
from clocks import ManualClock

from emojitune.errors import InvalidRequestError, InvalidStateError, NotFoundError
from emojitune.store import uploads as uploads_module
from emojitune.store.database import Database
from emojitune.store.files import FileStore, FileTooLargeError
from emojitune.store.uploads import UploadStore


@pytest.fixture
def uploads(database: Database, tmp_path: Path, files: FileStore) -> UploadStore:
    return UploadStore(database, "default", tmp_path / "home" / "files" / "parts", files)


def parts_in(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "home/files/parts").rglob("*") if path.is_file()]


def begin(uploads: UploadStore, *contents: bytes) -> tuple[str, list[str]]:
    size = sum(len(content) for content in contents)
    upload = uploads.create(filename="a", purpose="user_data", bytes=size)
    return upload.id, [uploads.add_part(upload.id, [content]).id for content in contents]


def test_the_order_of_parts_is_given_at_the_end(
    uploads: UploadStore, files: FileStore, tmp_path
) -> None:
    upload_id, (first, second, third) = begin(uploads, b"one ", b"two ", b"three")
    upload, stored = uploads.complete(upload_id, [third, first, second])
    assert files.path(stored.id).read_bytes() == b"threeone two "
    assert (upload.status, upload.file_id) == ("completed", stored.id)
    assert parts_in(tmp_path) == []


def test_another_process_can_complete_an_upload(
    uploads: UploadStore, database: Database, files: FileStore, tmp_path: Path
) -> None:
    upload_id, part_ids = begin(uploads, b"one ", b"two")
    again = UploadStore(database, "default", tmp_path / "home/files/parts", files)
    again.sweep()
    assert files.path(again.complete(upload_id, part_ids)[1].id).read_bytes() == b"one two"


def test_a_refused_completion_can_be_corrected(uploads: UploadStore, files: FileStore) -> None:
    upload_id, (first, second) = begin(uploads, b"one ", b"two")

    def object_to(_path: Path) -> None:
        raise InvalidRequestError("no")

    for part_ids, md5, check, words in (
        ([first], None, None, "must have as many bytes"),
        ([first, first, second], None, None, "named twice"),
        ([first, "part_x"], None, None, "is no part of"),
        ([first, second], "0" * 32, None, "MD5"),
        ([first, second], None, object_to, "no"),
    ):
        more = {} if check is None else {"check": check}
        with pytest.raises(InvalidRequestError, match=words):
            uploads.complete(upload_id, part_ids, md5=md5, **more)
    assert files.list().items == ()
    md5 = hashlib.md5(b"one two").hexdigest().upper()
    assert uploads.complete(upload_id, [first, second], md5=md5)[0].status == "completed"


def test_an_upload_that_has_ended_takes_no_parts_and_no_other_end(
    uploads: UploadStore, tmp_path: Path
) -> None:
    completed, part_ids = begin(uploads, b"x")
    uploads.complete(completed, part_ids)
    cancelled, others = begin(uploads, b"x")
    uploads.cancel(cancelled)
    for upload_id, ids in ((completed, part_ids), (cancelled, others)):
        for ask in (
            lambda upload_id, _: uploads.add_part(upload_id, [b"y"]),
            uploads.complete,
            lambda upload_id, _: uploads.cancel(upload_id),
        ):
            with pytest.raises(InvalidStateError, match="that is pending"):
                ask(upload_id, ids)
    assert parts_in(tmp_path) == []


def test_an_upload_ends_in_an_hour(
    uploads: UploadStore, tmp_path: Path, clock: ManualClock
) -> None:
    upload_id, part_ids = begin(uploads, b"x")
    upload = uploads.get(upload_id)
    assert upload.expires_at == upload.created_at + 3600
    clock.now = upload.expires_at
    assert uploads.get(upload_id).status == "expired"
    with pytest.raises(InvalidStateError, match="is expired"):
        uploads.add_part(upload_id, [b"y"])
    with pytest.raises(InvalidStateError, match="is expired"):
        uploads.complete(upload_id, part_ids)
    alive, _ = begin(uploads, b"z")
    assert [path.parent.name for path in parts_in(tmp_path)] == [alive]


def test_of_two_completions_at_once_one_succeeds(uploads: UploadStore, files: FileStore) -> None:
    upload_id, part_ids = begin(uploads, b"x")
    both_look = threading.Barrier(2)
    outcomes: list[str] = []

    def complete() -> None:
        try:
            outcome = uploads.complete(upload_id, part_ids, check=lambda _: both_look.wait(10))
            outcomes.append(outcome[0].status)
        except InvalidStateError:
            outcomes.append("refused")

    threads = [threading.Thread(target=complete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["completed", "refused"]
    assert len(files.list().items) == 1


def test_too_many_bytes_are_refused(
    uploads: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "MAX_PART_BYTES", 4)
    monkeypatch.setattr(uploads_module, "MAX_UPLOAD_BYTES", 6)
    upload_id, _ = begin(uploads, b"1234")
    with pytest.raises(FileTooLargeError, match="A part may have at most 4 bytes"):
        uploads.add_part(upload_id, [b"123", b"45"])
    with pytest.raises(FileTooLargeError, match="with this one they have 7"):
        uploads.add_part(upload_id, [b"123"])
    assert len(parts_in(tmp_path)) == 1


def test_unknown_uploads_are_not_found(uploads: UploadStore) -> None:
    for ask in (uploads.get, uploads.cancel, lambda upload_id: uploads.add_part(upload_id, [b"x"])):
        with pytest.raises(NotFoundError, match="upload_x"):
            ask("upload_x")


@pytest.mark.skipif(os.name != "posix", reason="rights are those of POSIX")
def test_only_the_owner_may_read_a_part(uploads: UploadStore, tmp_path: Path) -> None:
    begin(uploads, b"x")
    assert [path.stat().st_mode & 0o777 for path in parts_in(tmp_path)] == [0o600]


def test_completing_an_upload_that_is_cancelled_meanwhile_reports_that(
    uploads: UploadStore, monkeypatch: pytest.MonkeyPatch, files: FileStore
) -> None:
    upload_id, part_ids = begin(uploads, b"one ", b"two")
    real = uploads_module.chunks_of

    def cancel_after_the_first(part: object) -> object:
        yield from real(part)
        monkeypatch.setattr(uploads_module, "chunks_of", real)
        uploads.cancel(upload_id)

    monkeypatch.setattr(uploads_module, "chunks_of", cancel_after_the_first)
    with pytest.raises(InvalidStateError, match="is cancelled"):
        uploads.complete(upload_id, part_ids)
    assert not files.list().items


def test_adding_a_part_to_an_upload_that_is_cancelled_meanwhile_reports_that(
    uploads: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id, _ = begin(uploads, b"one ")
    real = uploads_module.open_private

    def cancel_before(path: Path) -> object:
        uploads.cancel(upload_id)
        return real(path)

    monkeypatch.setattr(uploads_module, "open_private", cancel_before)
    with pytest.raises(InvalidStateError, match="is cancelled"):
        uploads.add_part(upload_id, [b"two"])
