"""The folder of a copy on disk: whatever stands there is whole.

A file is written aside, synced and renamed, and then recorded in a journal, from which the manifest
is made in the end. A killed process leaves the journal, and at most a file without a record, which
is written once more. Knows nothing of providers.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from emojitune.disk import disk_errors, folder_errors, fsync, make_private_folder, open_private
from emojitune.errors import ConfigurationError, InvalidStateError
from emojitune.workflow.rescue.names import Names

MANIFEST = "manifest.json"
README = "README.md"
FORMAT = 1  # of the manifest

_JOURNAL = "manifest-journal.jsonl"
_LOCK = "rescue.lock"
_ASIDE = "partial"
_FOLDERS = {
    "job": "jobs",
    "file": "files",
    "model": "models",
    "batch": "batches",
    "chat": "chats",
    "list": "lists",
    "reply": "replies",
}
_FLAT = "replies"  # a file for each object instead of a folder
_PATH = re.compile(r"[a-z]+(/[A-Za-z0-9_-][A-Za-z0-9._-]*){1,2}")
_PARTS = ("object", "events", "checkpoints", "content", "csv", "messages")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a provider's object, such as the events of a job.

    Attributes:
        kind: What it is a part of: one of the folders below.
        part: Which one of the parts below; "object" is the object itself.
    """

    kind: str
    id: str
    part: str = "object"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a part: one record of the manifest.

    Attributes:
        source: The path below the base URL that it came from.
        at: When it came, as an ISO date and time; if nothing came, when it was asked for.
        path: Its file, below the folder; None if there is none.
        items: The number of objects in a file with one on each line.
        final: Whether it can no longer change at the provider.
        note: What is unusual about it.
        refused: The status, code, message and time of the provider's last refusal.
    """

    kind: str
    id: str
    part: str
    source: str
    at: str
    path: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    items: int | None = None
    final: bool = True
    note: str | None = None
    refused: dict[str, Any] | None = None

    @property
    def key(self) -> Part:
        return Part(self.kind, self.id, self.part)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to say of it any more."""
        return self.path is None and self.refused is None


class RescueFolder:
    """The parts that are in a folder, and those that were refused.

    Args:
        clock: The time in unix seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.path = folder
        self._clock = clock
        self._entries: dict[Part, Entry] = {}
        self._names = {name: Names() for name in _FOLDERS.values()}
        self._folders: set[Path] = set()
        self._source: str | None = None
        self._is_complete = False
        self._load()

    @property
    def is_complete(self) -> bool:
        """Whether the account was copied to its end."""
        return self._is_complete

    @property
    def now(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")

    @property
    def entries(self) -> list[Entry]:
        """All records, in the order of the manifest."""
        kept = (entry for entry in self._entries.values() if not entry.is_empty)
        return sorted(kept, key=lambda entry: (entry.kind, entry.id, entry.part))

    def entry(self, part: Part) -> Entry | None:
        return self._entries.get(part)

    def ids(self, kind: str) -> list[str]:
        """The ids of the objects of a kind, sorted."""
        return sorted({part.id for part in self._entries if part.kind == kind})

    def stands(self, part: Part) -> bool:
        """Whether a part is there with the size that was recorded.

        After a power failure a file that was renamed may be missing although it was recorded.
        """
        entry = self._entries.get(part)
        if entry is None or entry.path is None:
            return False
        try:
            return (self.path / entry.path).stat().st_size == entry.bytes
        except OSError:
            return False

    def is_final(self, part: Part) -> bool:
        """Whether a part is there and can no longer change."""
        entry = self._entries.get(part)
        return entry is not None and entry.final and self.stands(part)

    def holds(self, part: Part, content: bytes) -> bool:
        """Whether a part is there with this very content."""
        entry = self._entries.get(part)
        digest = hashlib.sha256(content).hexdigest()
        return entry is not None and entry.sha256 == digest and self.stands(part)

    def read(self, part: Part) -> Any:
        """The JSON value of a part that is there; an empty object if it is not."""
        entry = self._entries.get(part)
        if entry is None or entry.path is None or not self.stands(part):
            return {}
        return json.loads((self.path / entry.path).read_text(encoding="utf-8"))

    def place(self, part: Part, name: str) -> str:
        """The path for a file named `name` of an object, below the folder."""
        entry = self._entries.get(part)
        if entry is not None and entry.path is not None:
            return entry.path
        folder = _FOLDERS[part.kind]
        if folder == _FLAT:
            return f"{folder}/{self._names[folder].name(part.id)}.jsonl"
        taken = Names()
        for other in _PARTS:
            entry = self._entries.get(Part(part.kind, part.id, other))
            if entry is not None and entry.path is not None:
                taken.add(entry.path.rpartition("/")[2], other)
        return f"{folder}/{self._names[folder].name(part.id)}/{taken.name(name)}"

    @contextmanager
    def write(self, part: Part, name: str, source: str, **more: Any) -> Iterator["Draft"]:
        """A file to write into, which replaces the part's file and is recorded when the block ends.

        Args:
            name: Its name at the provider.
            more: Further fields of its record.
        """
        path = self.place(part, name)
        aside = self.path / _ASIDE
        with disk_errors(self.path), open_private(aside, "w+b") as file:
            draft = Draft(file)
            yield draft
            if draft.is_dropped:
                return
            file.flush()
            os.fsync(file.fileno())
            size = file.seek(0, os.SEEK_END)
            file.close()  # Windows renames no open file
            with aside.open("rb") as written:
                digest = hashlib.file_digest(written, "sha256").hexdigest()
            target = self.path / path
            self._make_folder(target.parent)
            os.replace(aside, target)  # its folder is synced in the end: see `stands`
            more = {**more, **draft.more}
            head = (part.kind, part.id, part.part, source, self.now)
            self._record(Entry(*head, path, digest, size, **more))

    def refuse(
        self, part: Part, source: str, *, status: int | None, code: str | None, message: str
    ) -> None:
        """Record that a part was refused; a file that is there of it stays."""
        refused = {"status": status, "code": code, "message": message}
        entry = self._entries.get(part)
        if entry is None:
            entry = Entry(part.kind, part.id, part.part, source, self.now)
        if {**(entry.refused or {}), **refused} != entry.refused:
            self._record(replace(entry, refused={**refused, "at": self.now}))

    def accept(self, part: Part) -> None:
        """Forget that a part was refused."""
        entry = self._entries.get(part)
        if entry is not None and entry.refused is not None:
            self._record(replace(entry, refused=None))

    def start(self, source: str) -> None:
        """Prepare for writing, after a process that may have been killed."""
        self.check_source(source)
        self._source = source
        (self.path / _ASIDE).unlink(missing_ok=True)
        self.save()

    def save(self, *, is_complete: bool | None = None) -> None:
        """Write the manifest.

        Args:
            is_complete: Whether the account was copied to its end; None leaves that as it is.
        """
        if is_complete is not None:
            self._is_complete = is_complete
        self._write_manifest()

    def sync(self) -> None:
        """Wait until all folders are on the disk."""
        if hasattr(os, "sync"):  # once: syncing each of 10,000 folders takes half a minute
            os.sync()

    def write_readme(self, text: str) -> None:
        with self._whole(README) as file:
            file.write(text)

    def check_source(self, source: str) -> None:
        """Check that the folder has no copy of another provider's objects.

        Raises:
            InvalidStateError: It has.
        """
        if self._source not in (None, source):
            raise InvalidStateError(
                f"A folder holds the objects of one provider, and {self.path} has those of "
                f"{self._source}. Name another folder for {source}."
            )

    def _record(self, entry: Entry) -> None:
        self._entries[entry.key] = entry
        with open_private(self.path / _JOURNAL, "a") as journal:
            journal.write(json.dumps(asdict(entry)) + "\n")

    def _make_folder(self, folder: Path) -> None:
        if folder in self._folders or folder == self.path:
            return
        self._make_folder(folder.parent)
        make_private_folder(folder)
        self._folders.add(folder)

    def _load(self) -> None:
        manifest = self.path / MANIFEST
        try:
            value = json.loads(manifest.read_text(encoding="utf-8"))
            self._source, self._is_complete = value["source"], value["is_complete"]
            for one in value["entries"]:
                self._take(Entry(**one))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(
                f"{manifest} must be the manifest that `emojitune rescue` wrote, and cannot be "
                f"read ({error}). Move it away: everything is then copied again."
            ) from None
        for line in self._journal_lines():
            try:
                self._take(Entry(**json.loads(line)))
            except (ValueError, TypeError):  # the last line of a process that was killed
                continue

    def _journal_lines(self) -> list[str]:
        try:
            text = (self.path / _JOURNAL).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.split("\n")

    def _take(self, entry: Entry) -> None:
        if entry.path is not None and not _PATH.fullmatch(entry.path):
            raise ValueError(f"{entry.path!r} is no path that this program writes")
        self._entries[entry.key] = entry
        if entry.path is not None:
            folder, name, *_ = entry.path.split("/")
            self._names[folder].add(name.removesuffix(".jsonl"), entry.id)

    def _write_manifest(self) -> None:
        """Write the manifest, one record on each line, and remove the journal."""
        head = {"format": FORMAT, "source": self._source, "is_complete": self._is_complete}
        with self._whole(MANIFEST) as file:
            file.write(json.dumps(head, indent=1)[:-2] + ',\n "entries": [')
            for place, entry in enumerate(self.entries):
                known = {name: one for name, one in asdict(entry).items() if one is not None}
                file.write(("," if place else "") + "\n  " + json.dumps(known))
            file.write("\n ]\n}\n")
        (self.path / _JOURNAL).unlink(missing_ok=True)

    @contextmanager
    def _whole(self, name: str) -> Iterator[IO[str]]:
        """A text file that replaces `name` when the block ends."""
        aside = self.path / _ASIDE
        with disk_errors(self.path):
            with open_private(aside, "w") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, self.path / name)
            fsync(self.path)


class Draft:
    """A file that is being written, and further fields of its record."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.more: dict[str, Any] = {}
        self.is_dropped = False

    def drop(self) -> None:
        """Leave everything as it was."""
        self.is_dropped = True


@contextmanager
def open_folder(folder: Path, source: str, clock: Callable[[], float]) -> Iterator[RescueFolder]:
    """The folder of a copy, for this process alone. It is made if it is missing.

    Raises:
        InvalidStateError: Another process copies into it, or it holds another provider's objects,
            or something else.
        ConfigurationError: It cannot be made, or its manifest cannot be read.
    """
    with folder_errors(folder, "folder", "another name"), disk_errors(folder):
        make_private_folder(folder)
        names = {path.name for path in folder.iterdir()}
    if names and not names & {MANIFEST, _JOURNAL, _LOCK}:
        raise InvalidStateError(
            f"The folder must be new, empty or of an earlier rescue, and {folder} holds "
            f"{min(names)}. Name another one."
        )
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)  # the system releases it when this process dies
    except Timeout:
        raise InvalidStateError(
            f"Another process is copying into {folder}. Wait for its end, or name another folder."
        ) from None
    try:
        opened = RescueFolder(folder, clock)
        opened.start(source)
        yield opened
    finally:
        lock.release()
