"""Examines a home folder for damage and leftovers, and repairs what can be repaired.

Never deletes anything that a user uploaded or trained. Whatever the database no longer refers to is
moved to `recovered/`, where it can be inspected. Deleted are only remains of interrupted writes,
files that can be computed again, and base models that can be fetched again.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from emojitune.disk import close_to_others, disk_errors, is_open_to_others, make_private_folder
from emojitune.errors import ConfigurationError, EmojituneError, ModelError
from emojitune.models.cached_folder import first_missing_part
from emojitune.settings import Settings
from emojitune.store.database import Database, check_home, open_database
from emojitune.store.files import StoredFile
from emojitune.store.jobs import FINISHED, JOB_PREFIX
from emojitune.store.scope import EVERY_PROJECT
from emojitune.store.stores import Stores, stores_of

# Files of a home folder that may hold private text. Others in it may be the user's own.
_OURS = ("emojitune.db*", "api_key", "server.*", "files", "adapters", "runs", "recovered")


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    `action` does what `repair` describes; both are None where only a person can repair it, and
    `problem` then says how.
    """

    area: str
    problem: str
    repair: str | None = None
    action: Callable[[], None] | None = None


def examine(settings: Settings, *, verify: Callable[[Path], object]) -> list[Finding]:
    """Find all problems of the home and the cache of these settings.

    Args:
        verify: Checks an adapter's folder; raises ModelError when it is damaged.

    Raises:
        ConfigurationError: The home is not a folder, and cannot become one.
    """
    check_home(settings.home)
    findings = list(_base_models(settings))
    if not (settings.home / "emojitune.db").is_file():
        return findings
    try:
        database = open_database(settings.home)
        damage = database.damage()
    except EmojituneError as error:
        return [Finding("database", error.message), *findings]
    if damage:
        advice = "Start from the last backup (`emojitune backup`), and keep this folder meanwhile."
        return [*(Finding("database", f"{one}. {advice}") for one in damage), *findings]
    return [*_Home(settings, database, verify).findings(), *findings]


def repair(findings: list[Finding], settings: Settings) -> list[Finding]:
    """Repair the problems that can be repaired, and return the others.

    Raises:
        ConfigurationError: A server is using the home folder.
        StorageError: The disk is full or read-only.
    """
    try:
        with disk_errors(settings.home), FileLock(settings.home / "server.lock").acquire(timeout=0):
            for finding in findings:
                if finding.action is not None:
                    finding.action()
    except Timeout:
        raise ConfigurationError(
            f"Nothing is repaired while a server uses {settings.home}. Stop it first.", param="home"
        ) from None
    return [finding for finding in findings if finding.action is None]


class _Home:
    def __init__(
        self, settings: Settings, database: Database, verify: Callable[[Path], object]
    ) -> None:
        self._settings = settings
        self._stores: Stores = stores_of(database, EVERY_PROJECT, settings)
        self._verify = verify
        self._served = _is_served(settings.home)

    def findings(self) -> Iterator[Finding]:
        yield from self._files()
        yield from self._adapters()
        yield from self._runs()
        yield from self._permissions()
        if not self._served:  # otherwise the server may be writing them now
            yield from self._temporaries()

    def _files(self) -> Iterator[Finding]:
        kept: set[Path] = set()
        for file in self._stores.files.all():
            path = self._stores.files.blob(file.sha256)
            if path not in kept and (wrong := _damage(path, file)):
                yield Finding(
                    "files",
                    f"{file.id} ({file.filename}): {wrong}. Upload it again, or take it from a "
                    f"backup: it belongs at {path}.",
                )
            kept.add(path)
        for path in self._settings.files.glob("??/*"):
            if path not in kept and not self._served:
                yield self._recover("files", path, "no file of the database has these bytes")

    def _adapters(self) -> Iterator[Finding]:
        kept: set[str] = set()
        for model in self._stores.models.list():
            kept.add(model.adapter)
            try:
                self._verify(self._settings.adapters / model.adapter)
            except ModelError as error:
                yield Finding("adapters", f"{model.name}: {error.message}")
        for path in self._settings.adapters.glob("*"):
            if path.name not in kept and path.suffix != ".partial" and not self._served:
                yield self._recover("adapters", path, "no model of the database uses it")

    def _runs(self) -> Iterator[Finding]:
        statuses = self._stores.jobs.statuses()
        for path in self._settings.runs.glob(f"{JOB_PREFIX}*"):
            if path.name not in statuses:
                yield self._recover("runs", path, "no job of the database has this id")
            elif statuses[path.name] in FINISHED and (path / "checkpoints").exists():
                yield _delete("runs", path / "checkpoints", "its job has ended")

    def _permissions(self) -> Iterator[Finding]:
        home = self._settings.home
        if not is_open_to_others(home):  # then nobody else reaches anything in it
            return
        open_paths = [path for name in _OURS for path in home.glob(name) if is_open_to_others(path)]
        if open_paths:
            yield Finding(
                "permissions",
                f"{home} is open to others, and so are in it: "
                f"{', '.join(sorted(path.name for path in open_paths))}",
                "leave them to their owner alone",
                partial(_close, open_paths),
            )

    def _temporaries(self) -> Iterator[Finding]:
        home = self._settings.home
        for pattern in ("files/incoming-*", "adapters/*.partial", "runs/*/checkpoints/*.partial"):
            for path in home.glob(pattern):
                yield _delete("temporaries", path, "an interrupted write left it")

    def _recover(self, area: str, path: Path, why: str) -> Finding:
        target = self._settings.home / "recovered" / area / path.name

        def move() -> None:
            make_private_folder(target.parent)
            shutil.rmtree(target, ignore_errors=True)
            path.rename(target)

        return Finding(area, f"{path}: {why}", f"move it to {target}", move)


def _base_models(settings: Settings) -> Iterator[Finding]:
    for path in (settings.cache / "models").glob("*"):
        if path.is_dir() and path.suffix != ".partial" and (missing := first_missing_part(path)):
            why = f"{missing}; it is downloaded again when it is needed"
            yield _delete("base models", path, why)


def _close(paths: list[Path]) -> None:
    for path in paths:
        close_to_others(path)


def _delete(area: str, path: Path, why: str) -> Finding:
    def remove() -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    return Finding(area, f"{path}: {why}", "delete it", remove)


def _damage(path: Path, file: StoredFile) -> str | None:
    if not path.is_file():
        return "its bytes are missing"
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        return f"its bytes have changed ({path.stat().st_size} instead of {file.bytes} bytes)"
    return None


def _is_served(home: Path) -> bool:
    try:
        with FileLock(home / "server.lock").acquire(timeout=0):
            return False
    except Timeout:
        return True
