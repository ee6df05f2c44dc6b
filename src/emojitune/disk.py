"""Atomic folders, private files, and the errors of a disk.

Knows files and folders, not their content: the caller knows whether a file may hold what people
wrote, and then uses the private functions.
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

_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_READ_ONLY_ERRNOS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_NOT_A_FOLDER_ERRNOS = frozenset(
    {errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
)
_GROUP_AND_OTHERS = 0o077  # the bits of a file mode for all but the owner
# The error codes of SQLite for the same (SQLITE_FULL, SQLITE_READONLY),
_SQLITE_ERRNOS = {13: errno.ENOSPC, 8: errno.EROFS}
# and the number in the messages of libraries that are not written in Python.
_ERRNO_IN_TEXT = re.compile(r"os error (\d+)")

Fence = Callable[[], AbstractContextManager[object]]
"""A context entered around a rename: it raises if the writer has lost its right to write, such as a
lease, and preserves that right until it is left. A check before the rename would leave a gap."""


def check_fence(fence: Fence) -> None:
    """Enter and leave a fence: raises before work that it would forbid in the end."""
    with fence():
        pass


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its owner can access, and its missing parents likewise.

    An existing folder stays as it is: it may be the user's own, with other things in it.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        if folder == folder.parent:
            raise
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def open_private(path: Path, mode: str = "xb") -> IO[Any]:
    """Open a file for writing that only its owner can access, even if it exists already."""

    def opener(name: str, flags: int) -> int:
        handle = os.open(name, flags, 0o600)
        file_mode = os.fstat(handle).st_mode
        if os.name == "posix" and stat.S_ISREG(file_mode) and file_mode & _GROUP_AND_OTHERS:
            os.fchmod(handle, 0o600)
        return handle

    return open(path, mode, encoding=None if "b" in mode else "utf-8", opener=opener)


def open_derived(path: Path, source: Path) -> IO[str]:
    """Open a new text file with the permissions of `source`, as far as the umask allows."""
    source_mode = source.stat().st_mode
    permissions = 0o600 | source_mode & 0o666 if stat.S_ISREG(source_mode) else 0o600
    opener = partial(os.open, mode=permissions)
    return open(path, "x", encoding="utf-8", newline="\n", opener=opener)


def is_open_to_others(path: Path) -> bool:
    """Whether the mode of a file gives anybody but its owner any access."""
    return os.name == "posix" and bool(path.stat().st_mode & _GROUP_AND_OTHERS)


def close_to_others(path: Path) -> None:
    """Remove the access of all but the owner."""
    if is_open_to_others(path):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~_GROUP_AND_OTHERS)


def replace_folder(staging: Path, target: Path, fence: Fence = nullcontext) -> None:
    """Replace the folder `target` by the complete folder `staging`, durably.

    All of it is on the disk before it gets its name: not even a power failure leaves half of it.
    """
    for path in [*staging.rglob("*"), staging]:
        fsync(path)
    with fence():
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
    fsync(target.parent)


@contextmanager
def atomic_folder(
    target: Path, *, staging: Path | None = None, fence: Fence = nullcontext
) -> Iterator[Path]:
    """A folder to write into, which appears as `target` when the block ends, or not at all.

    Only its owner can access it, from its creation on, and all files in it when it appears.

    After a failure the partial folder is deleted immediately: its bytes may be the last of a disk
    on which the failure has yet to be recorded.

    Args:
        staging: The folder to write, beside `target`. One that a killed process left is emptied.
        fence: Entered while the folder appears.

    Raises:
        StorageError: The disk is full or read-only; an earlier `target` stays.
    """
    staging = staging or target.with_name(target.name + ".partial")
    with disk_errors(target):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            make_private_folder(staging.parent)
            staging.mkdir(mode=0o700)
            yield staging
            for path in staging.rglob("*"):
                close_to_others(path)
            replace_folder(staging, target, fence)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def fsync(path: Path) -> None:
    """Wait until a file or, where folders can be opened, a folder is on the disk."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Raise a StorageError for a full or read-only disk; other errors pass unchanged."""
    try:
        yield
    except Exception as error:
        storage_error = _storage_error(error, where)
        if storage_error is None:
            raise
        raise storage_error from error


@contextmanager
def folder_errors(folder: Path, name: str, choice: str) -> Iterator[None]:
    """Raise a ConfigurationError for a path that cannot be a folder; other errors pass unchanged.

    Args:
        name: The setting that names the folder.
        choice: The option or variable that chooses another one.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_A_FOLDER_ERRNOS:
            raise
        raise ConfigurationError(
            f"The {name} must be a folder, or one that can be made, and {folder} cannot be one "
            f"({error.strerror}). Choose another folder with {choice}.",
            param=name,
        ) from error


def disk_full_error(where: Path) -> StorageError:
    """The error of a full disk."""
    return StorageError(
        f"The disk is full, or this process may write no larger file: {where} could not be "
        "written. What was there before is unharmed. Free some space and try again; `emojitune "
        "doctor` lists what can go.",
        code="disk_full",
    )


def read_only_error(where: Path) -> StorageError:
    """The error of a disk or folder that cannot be written."""
    return StorageError(
        f"{where} must be writable, and is not: its file system is mounted read-only, or its "
        "permissions forbid it. Change that, or choose another folder with --home "
        "(EMOJITUNE_HOME), or EMOJITUNE_CACHE for base models.",
        code="disk_read_only",
    )


def _storage_error(error: Exception, where: Path) -> StorageError | None:
    number = error.errno if isinstance(error, OSError) else None
    number = number or _SQLITE_ERRNOS.get(getattr(error, "sqlite_errorcode", 0))
    if number is None and (named := _ERRNO_IN_TEXT.search(str(error))):
        number = int(named[1])
    if number in _FULL_ERRNOS:
        return disk_full_error(where)
    if number in _READ_ONLY_ERRNOS:
        return read_only_error(where)
    return None
