"""A consistent copy of a home folder, made while a server works in it.

The copy is a home of its own: a server started on it continues from that moment. A job that was
running starts over there, and ends with the same adapter. Like a home, it is for its owner alone.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from emojitune.disk import atomic_folder, disk_errors, make_private_folder
from emojitune.errors import ConfigurationError, EmojituneError, StorageError

_TRIES = 3  # files may be deleted between the copy of the database and their own
_DATABASE = "emojitune.db"


@dataclass(frozen=True, slots=True)
class Backup:
    """Counts of the copied files and adapters, and the paths that the home lacks."""

    files: int
    adapters: int
    missing: tuple[str, ...]


def back_up(home: Path, target: Path) -> Backup:
    """Copy the home folder to `target`, which appears complete or not at all.

    Raises:
        ConfigurationError: There is nothing to copy, or `target` is taken or within the home.
        StorageError: The disk of `target` is full or closed, or the database cannot be copied.
    """
    # Not `resolve`, which cannot bear links in a circle.
    home, target = (Path(os.path.realpath(folder)) for folder in (home, target))
    with _backup_errors(home, target):
        _require_places(home, target)
        _require_room(home, target)
        return _back_up(home, target)


def _back_up(home: Path, target: Path) -> Backup:
    # Checked again when the copy appears: what others put there meanwhile must not be deleted.
    with atomic_folder(target, fence=partial(_new_or_empty, target)) as staging:
        for _ in range(_TRIES):
            _copy_database(home / _DATABASE, staging / _DATABASE)
            content = _Content(staging / _DATABASE, "?immutable=1")
            missing = tuple(_copy_missing(home, staging, content.paths))
            if not missing:
                break
        if (home / "api_key").is_file():
            shutil.copy2(home / "api_key", staging / "api_key")
    return Backup(content.files, content.adapters, missing)


class _Content:
    """The paths under a home that a database names."""

    def __init__(self, database: Path, options: str = "") -> None:
        # Without a log, which would take room next to a copy: nobody writes to that one.
        with closing(sqlite3.connect(f"{database.as_uri()}{options}", uri=True)) as connection:
            blobs = {row[0] for row in connection.execute("SELECT sha256 FROM files")}
            adapters = {
                row[0] for row in connection.execute("SELECT adapter FROM fine_tuned_models")
            }
            parts = connection.execute("SELECT upload_id, id FROM upload_parts").fetchall()
            waiting = connection.execute("SELECT id FROM uploads WHERE status = 'pending'")
            pending = {row[0] for row in waiting}
        self.files = len(blobs)
        self.adapters = len(adapters)
        self.paths = [
            *(Path("files", sha256[:2], sha256) for sha256 in sorted(blobs)),
            *(Path("adapters", name) for name in sorted(adapters)),
            *(Path("files", "parts", upload, part) for upload, part in parts if upload in pending),
        ]


def _copy_database(source: Path, target: Path) -> None:
    """Copy through SQLite itself: a transaction meanwhile is in the copy entirely or not at all."""
    with (
        closing(sqlite3.connect(source)) as opened,
        closing(sqlite3.connect(target)) as copy,
    ):
        opened.backup(copy)


def _copy_missing(home: Path, staging: Path, paths: list[Path]) -> Iterator[str]:
    """Copy the files that are not there yet; yields those that the home lacks."""
    for path in paths:
        source, target = home / path, staging / path
        if target.exists():
            continue
        make_private_folder(target.parent)
        try:
            _copy(source, target)
        except FileNotFoundError:
            shutil.rmtree(target, ignore_errors=True)
            yield path.as_posix()


def _copy(source: Path, target: Path) -> None:
    # Not shutil.copytree: it merges several errors into one, which hides a full disk.
    if not source.is_dir():
        shutil.copy2(source, target)
        return
    make_private_folder(target)
    for path in source.iterdir():
        _copy(path, target / path.name)


def _require_places(home: Path, target: Path) -> None:
    if not (home / _DATABASE).is_file():
        raise ConfigurationError(
            f"There is nothing to back up: {home} holds no {_DATABASE}. Name the home folder with "
            "--home.",
            param="home",
        )
    if target == home or home in target.parents:
        raise ConfigurationError(
            f"A backup must lie outside of its home folder, and {target} is within {home}.",
            param="target",
        )
    if os.path.ismount(target):  # where no folder can be put in the place of another
        raise ConfigurationError(
            f"A backup is a folder on a disk, and {target} is where one is mounted. Name a folder "
            f"on it: {target / 'emojitune-backup'}",
            param="target",
        )
    with _new_or_empty(target):
        pass


@contextmanager
def _new_or_empty(target: Path) -> Iterator[None]:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"A backup goes into a new or empty folder, and {target} is neither. Name another.",
            param="target",
        )
    yield


def _require_room(home: Path, target: Path) -> None:
    """Refuse a disk without room before anything is written, instead of filling it."""
    if _size(home) > _free(target):
        raise _too_full(home, target)


def _size(home: Path) -> int:
    """The bytes that a backup of `home` copies."""
    database = home / _DATABASE
    paths = [database, home / f"{_DATABASE}-wal", *(home / one for one in _Content(database).paths)]
    return sum(_bytes(path) for path in paths)


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(_bytes(Path(at, name)) for at, _, names in os.walk(path) for name in names)
    with suppress(FileNotFoundError):  # deleted meanwhile
        return path.stat().st_size
    return 0


def _free(target: Path) -> int:
    return shutil.disk_usage(next(one for one in (target, *target.parents) if one.exists())).free


@contextmanager
def _backup_errors(home: Path, target: Path) -> Iterator[None]:
    """Turn what disks and SQLite refuse into errors that say what to do about the backup."""
    try:
        with disk_errors(target):
            yield
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"The database of {home} could not be copied to {target} ({error}). `emojitune doctor` "
            "says whether it is damaged.",
            code="storage_unavailable",
        ) from error
    except StorageError as error:
        if error.code == "disk_full":
            raise _too_full(home, target) from error
        raise _refused(error.__cause__, home, target) from error
    except OSError as error:
        raise _refused(error, home, target) from error


def _too_full(home: Path, target: Path) -> StorageError:
    needed, free = _size(home), _free(target)
    disk = next(one for one in (target, *target.parents) if os.path.ismount(one))
    limited = ", but a quota or a limit of file sizes allows less" if needed <= free else ""
    return StorageError(
        f"The disk at {disk} is too full for a backup in {target}: it takes {needed / 1e6:.1f} MB, "
        f"and {free / 1e6:.1f} MB are free{limited}. Nothing of it was left there, and {home} is "
        "as it was. Free some space on that disk, or name a folder on another one.",
        code="disk_full",
        param="target",
    )


def _refused(error: BaseException | None, home: Path, target: Path) -> EmojituneError:
    why = getattr(error, "strerror", None) or error
    where = Path(getattr(error, "filename", None) or target)
    if where.is_relative_to(home):
        return ConfigurationError(
            f"A backup copies all of {home}, and {where} cannot be read ({why}). Make it as the "
            "user whose home folder it is.",
            param="home",
        )
    return ConfigurationError(
        f"A backup must be written, and {target} cannot be ({why}: {where}). Nothing of it was "
        "left there. Name a folder that can be made.",
        param="target",
    )
