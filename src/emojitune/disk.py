"""Folders that appear whole or not at all, and what a disk refuses, in words.

Knows files and folders, not what is in them.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from emojitune.errors import StorageError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CLOSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
# How libraries that are not written in Python name the number.
_NUMBER = re.compile(r"os error (\d+)")

# Entered while something is put in its place; forbids it by an error.
Permit = Callable[[], AbstractContextManager[object]]


def put_in_place(staging: Path, target: Path, permit: Permit = nullcontext) -> None:
    """Make the folder that was written as `staging` appear as `target`, for good.

    All of it is on the disk before it has its name: not even a power cut leaves half of it there.
    """
    for path in [*staging.rglob("*"), staging]:
        sync(path)
    with permit():
        shutil.rmtree(target, ignore_errors=True)
        os.replace(staging, target)
    sync(target.parent)


@contextmanager
def new_folder(
    target: Path, *, staging: Path | None = None, permit: Permit = nullcontext
) -> Iterator[Path]:
    """A folder to write into, which appears as `target` when the block ends, or not at all.

    What is half written goes at once: the bytes that it took may be among the last of a disk, and
    whoever is to tell of the failure has to write that down.

    Args:
        staging: Where it is written, beside `target`. One that a killed process left is emptied.
        permit: Entered while it appears.

    Raises:
        StorageError: The disk is full or closed; a `target` of before stays.
    """
    staging = staging or target.with_name(target.name + ".partial")
    with disk_errors(target):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir(parents=True)
            yield staging
            put_in_place(staging, target, permit)
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
    if number is None and (named := _NUMBER.search(str(error))):
        number = int(named[1])
    if number in _FULL:
        return full(where)
    if number in _CLOSED:
        return closed(where)
    return None
