import hashlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clocks import ManualClock

from emojitune.errors import NotFoundError
from emojitune.store.files import FileStore, FileTooLargeError


def everything_in(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "home" / "files").rglob("*") if path.is_file()]


def test_stored_bytes_are_read_unchanged(files: FileStore) -> None:
    stored = files.add([b"one ", b"two"], filename="a.jsonl", purpose="fine-tune")
    assert files.path(stored.id).read_bytes() == b"one two"
    assert files.get(stored.id) == stored
    assert stored.bytes == 7
    assert stored.status == "processed"
    assert stored.sha256 == hashlib.sha256(b"one two").hexdigest()
    assert stored.id.startswith("file-")
    assert len(stored.id) == 29


def test_an_open_file_is_taken_too(files: FileStore) -> None:
    stored = files.add(io.BytesIO(b"x" * 3_000_000), filename="upload", purpose="fine-tune")
    assert stored.bytes == 3_000_000


def test_equal_bytes_are_kept_once_until_the_last_file_goes(
    files: FileStore, tmp_path: Path
) -> None:
    first = files.add([b"same"], filename="a", purpose="fine-tune")
    second = files.add([b"same"], filename="b", purpose="fine-tune")
    assert len(everything_in(tmp_path)) == 1
    files.delete(first.id)
    assert files.path(second.id).read_bytes() == b"same"
    files.delete(second.id)
    assert everything_in(tmp_path) == []


def test_too_many_bytes_leave_no_file(files: FileStore, tmp_path: Path) -> None:
    with pytest.raises(FileTooLargeError, match="at most 4 bytes"):
        files.add([b"abc", b"de"], filename="a", purpose="fine-tune", max_bytes=4)
    assert everything_in(tmp_path) == []
    assert files.list().items == ()


def test_a_broken_upload_leaves_no_file(files: FileStore, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"abc"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        files.add(broken(), filename="a", purpose="fine-tune")
    assert everything_in(tmp_path) == []


def test_unknown_files_are_not_found_in_openais_words(files: FileStore) -> None:
    with pytest.raises(NotFoundError, match="No such File object: file-x") as caught:
        files.delete("file-x")
    assert caught.value.param == "id"


def test_pages_meet_every_file_once_in_both_orders(files: FileStore) -> None:
    ids = [files.add([b"x"], filename="a", purpose="fine-tune").id for _ in range(5)]
    for order, expected in (("asc", ids), ("desc", ids[::-1])):
        seen: list[str] = []
        more = True
        while more:
            page = files.list(after=seen[-1] if seen else None, limit=2, order=order)
            seen += [stored.id for stored in page.items]
            more = page.has_more
        assert seen == expected


def test_lists_can_be_filtered_by_purpose(files: FileStore) -> None:
    files.add([b"x"], filename="a", purpose="fine-tune")
    other = files.add([b"x"], filename="b", purpose="batch")
    assert files.list(purpose="batch").items == (other,)


def test_an_unknown_cursor_is_not_the_first_page(files: FileStore) -> None:
    files.add([b"x"], filename="a", purpose="fine-tune")
    with pytest.raises(NotFoundError, match="last item of a page"):
        files.list(after="file-gone")


def test_a_file_expires(files: FileStore, tmp_path: Path, clock: ManualClock) -> None:
    stored = files.add([b"x"], filename="a", purpose="batch", expires_after=1000)
    assert (stored.created_at, stored.expires_at) == (clock.now, clock.now + 1000)
    clock.now += 999
    assert files.get(stored.id) == stored
    clock.now += 1
    with pytest.raises(NotFoundError):
        files.get(stored.id)
    files.add([b"y"], filename="b", purpose="batch")
    assert len(everything_in(tmp_path)) == 1


def test_a_callback_in_the_transaction_can_refuse_the_file(
    files: FileStore, tmp_path: Path
) -> None:
    def object_to(_connection: object, _stored: object) -> None:
        raise ZeroDivisionError

    def keep() -> None:
        with files.receive([b"abc"]) as incoming:
            assert incoming.path.read_bytes() == b"abc"
            files.keep(incoming, filename="a", purpose="user_data", then=object_to)

    with pytest.raises(ZeroDivisionError):
        keep()
    assert everything_in(tmp_path) == []
    assert files.list().items == ()


def test_half_received_files_of_a_dead_server_are_deleted_after_a_day(
    files: FileStore, tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "files"
    folder.mkdir()
    old, young = folder / "incoming-old", folder / "incoming-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(young, (time.time(), time.time()))
    files.sweep()
    assert everything_in(tmp_path) == [young]
