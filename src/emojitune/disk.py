"""Folders that appear whole or not at all, who may read what is written, and what a disk refuses.

Knows files and folders, not what is in them: whoever writes knows whether it may hold what people
wrote, and then takes what is private here.
"""

import errno
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Any

from emojitune.errors import ConfigurationError, StorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NO_FOLDER = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)
_OTHERS = 0o077  # of a mode: what the group and everybody else may do
# How SQLite says the same (SQLITE_FULL, SQLITE_READONLY),
_SQLITE = {13: errno.ENOSPC, 8: errno.EROFS}
# and how libraries that are not written in Python name the number.
_NUMBER = re.compile(r"os error (\d+)")

Fence = Callable[[], AbstractContextManager[object]]
"""Entered around a rename: raises where the writer has lost the right to it, by a lease that went
to another process, say, and keeps it from being lost in between. A check before the rename alone
would leave a gap."""


def check_fence(fence: Fence) -> None:
    """Raise what the fence raises, before work that it would forbid in the end."""
    with fence():
        pass


def make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for their owner alone.

    One that is there stays as it is: it may be the user's own, with other things in it.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        if folder == folder.parent:
            raise
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def open_private(path: Path, mode: str = "xb") -> IO[Any]:
    """Open a file to write to that its owner alone may read, and close an older one to others."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags, 0o600)
        found = os.fstat(handle).st_mode
        if os.name == "posix" and stat.S_ISREG(found) and found & _OTHERS:
            os.fchmod(handle, 0o600)
        return handle

    return open(path, mode, encoding=None if "b" in mode else "utf-8", opener=opener)


def open_derived(path: Path, source: Path) -> IO[str]:
    """Open a new text file that whoever may read `source` may read, as far as the umask lets."""
    found = source.stat().st_mode
    permissions = 0o600 | found & 0o666 if stat.S_ISREG(found) else 0o600
    opener = partial(os.open, mode=permissions)
    return open(path, "x", encoding="utf-8", newline="\n", opener=opener)


def is_open_to_others(path: Path) -> bool:
    """Whether anybody but its owner may do anything with it, as far as its mode says."""
    return os.name == "posix" and bool(path.stat().st_mode & _OTHERS)


def close_to_others(path: Path) -> None:
    """Leave it to its owner alone."""
    if is_open_to_others(path):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_OTHERS)


def put_in_place(staging: Path, target: Path, fence: Fence = nullcontext) -> None:
    """Make the folder that was written as `staging` appear as `target`, for good.

    All of it is on the disk before it has its name: not even a power cut leaves half of it there.
    """
    for path in [*staging.rglob("*"), staging]:
        sync(path)
    with fence():
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
    sync(target.parent)


@contextmanager
def new_folder(
    target: Path, *, staging: Path | None = None, fence: Fence = nullcontext
) -> Iterator[Path]:
    """A folder to write into, which appears as `target` when the block ends, or not at all.

    It is its owner's alone from the first moment on, and so is all that is in it when it appears.

    What is half written goes at once: the bytes that it took may be among the last of a disk, and
    whoever is to tell of the failure has to write that down.

    Args:
        staging: Where it is written, beside `target`. One that a killed process left is emptied.
        fence: Entered while it appears.

    Raises:
        StorageError: The disk is full or closed; a `target` of before stays.
    """
    staging = staging or target.with_name(target.name + ".partial")
    with disk_errors(target):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            make_private(staging.parent)
            staging.mkdir(mode=0o700)
            yield staging
            for path in staging.rglob("*"):
                close_to_others(path)
            put_in_place(staging, target, fence)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk, where folders can be opened at all."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Turn what a disk refuses into a StorageError; any other error passes as it is."""
    try:
        yield
    except Exception as error:
        found = _refusal(error, where)
        if found is None:
            raise
        raise found from error


@contextmanager
def folder_errors(folder: Path, name: str, choice: str) -> Iterator[None]:
    """Turn what keeps a path from being a folder into a ConfigurationError; any other error passes.

    Args:
        name: The setting that the folder is.
        choice: How another one is chosen.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_FOLDER:
            raise
        raise ConfigurationError(
            f"The {name} must be a folder, or one that can be made, and {folder} cannot be one "
            f"({error.strerror}). Choose another folder with {choice}.",
            param=name,
        ) from error


def full(where: Path) -> StorageError:
    """What is said when a disk takes no more."""
    return StorageError(
        f"The disk is full, or this process may write no larger file: {where} could not be "
        "written. What was there before is unharmed. Free some space and try again; `emojitune "
        "doctor` lists what can go.",
        code="disk_full",
    )


def closed(where: Path) -> StorageError:
    """What is said when nothing may be written."""
    return StorageError(
        f"{where} must be writable, and is not: its file system is mounted read-only, or its "
        "permissions forbid it. Change that, or choose another folder with --home "
        "(EMOJITUNE_HOME), or EMOJITUNE_CACHE for base models.",
        code="disk_read_only",
    )


def _refusal(error: Exception, where: Path) -> StorageError | None:
    number = error.errno if isinstance(error, OSError) else None
    number = number or _SQLITE.get(getattr(error, "sqlite_errorcode", 0))
    if number is None and (named := _NUMBER.search(str(error))):
        number = int(named[1])
    if number in _FULL:
        return full(where)
    if number in _CLOSED:
        return closed(where)
    return None
