"""A consistent copy of a home folder, made while a server works in it.

The copy is a home of its own: a server started on it goes on from that moment. A job that was
under way begins anew there, and ends with the same adapter.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from emojitune.disk import new_folder
from emojitune.errors import ConfigurationError

_TRIES = 3  # what is deleted between the copy of the database and that of its files
_DATABASE = "emojitune.db"


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied, and what the database knows but the home folder no longer has."""

    files: int
    adapters: int
    missing: tuple[str, ...]


def back_up(home: Path, target: Path) -> Backup:
    """Copy the home folder to `target`, which appears whole or not at all.

    Raises:
        ConfigurationError: There is nothing to copy, or `target` is taken or within the home.
        StorageError: The disk of `target` is full or closed.
    """
    home, target = home.resolve(), target.resolve()
    _require_places(home, target)
    with new_folder(target) as staging:
        for _ in range(_TRIES):
            _copy_database(home / _DATABASE, staging / _DATABASE)
            content = _Content(staging / _DATABASE)
            missing = tuple(_copy_missing(home, staging, content.paths))
            if not missing:
                break
        if (home / "api_key").is_file():
            shutil.copy2(home / "api_key", staging / "api_key")
    return Backup(content.files, content.adapters, missing)


class _Content:
    """The paths under a home that a database names."""

    def __init__(self, database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection:
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
    """By SQLite's own means: what others write meanwhile is in the copy whole or not at all."""
    with (
        closing(sqlite3.connect(source)) as opened,
        closing(sqlite3.connect(target)) as copy,
    ):
        opened.backup(copy)


def _copy_missing(home: Path, staging: Path, paths: list[Path]) -> Iterator[str]:
    """Copy what is not there yet; yields what the home does not have."""
    for path in paths:
        source, target = home / path, staging / path
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)
        except (FileNotFoundError, shutil.Error):
            shutil.rmtree(target, ignore_errors=True)
            yield path.as_posix()


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
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"A backup goes into a new or empty folder, and {target} is neither. Name another.",
            param="target",
        )
