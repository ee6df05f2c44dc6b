"""The SQLite database of a home folder: opened, migrated, and used in transactions.

Knows no table but Alembic's own; of the others only that rows with a `project` belong to it, so
that a statement on them must name the project (`store/scope.py`). All stores over it use its clock:
it stamps the rows that they add, and rows expire by it.
"""

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import URL, Connection, Engine, Select, UpdateBase, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.sql.util import find_tables

from emojitune import disk
from emojitune.errors import ConfigurationError, StorageError

MIGRATIONS = Path(__file__).parent / "migrations"
SCOPED = {"scoped": True}  # execution option of a statement that names its project
_BUSY_SECONDS = 30


class DatabaseUnavailableError(StorageError):
    """The database cannot be read or written now, through no fault of the request."""


class Database:
    """Short transactions on one SQLite file; threads and processes may share it."""

    def __init__(
        self,
        engine: Engine,
        path: Path,
        clock: Callable[[], float] = time.time,
        guard: Callable[[Connection], None] = lambda _: None,
    ) -> None:
        self.clock = clock  # unix seconds
        self._engine = engine
        self._path = path
        self._guard = guard
        self._file = _identity(path)
        self._open = threading.local()

    def now(self) -> int:
        """Whole unix seconds, as OpenAI's objects have them."""
        return int(self.clock())

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view, waiting for no writer; in a `transaction`, with the writes so far."""
        if (connection := self._current()) is not None:
            yield connection
            return
        with (
            self._storage_errors(),
            self._engine.connect() as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """The one writer: takes the write lock at once, so that reads inside it stay true.

        What this thread writes inside, by whatever store, is kept together or not at all: a
        `transaction` inside another one is a part of it.
        """
        if (connection := self._current()) is not None:
            yield connection
            return
        options = {"begin": "BEGIN IMMEDIATE"}
        with (
            self._storage_errors(),
            self._engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            self.require_in_place()
            self._guard(connection)
            self._open.connection = connection
            try:
                yield connection
            finally:
                self._open.connection = None

    def guarded(self, guard: Callable[[Connection], None]) -> "Database":
        """The same file with a `guard`, called first in each transaction, which it may refuse."""
        return Database(self._engine, self._path, self.clock, guard)

    def is_in_place(self) -> bool:
        """Whether the file is still the one that was opened: its folder may have been deleted."""
        return self._file is not None and _identity(self._path) == self._file

    def damage(self) -> list[str]:
        """The errors that SQLite itself finds in the file, in words."""
        with self.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
            keys = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        faults = [f"{self._path}: {fault}" for fault in pages if fault != "ok"]
        return faults + [
            f"{self._path}: a row of {key[0]} belongs to none of {key[2]}" for key in keys
        ]

    def close(self) -> None:
        self._engine.dispose()

    def require_in_place(self, why: str = "another file is in its place, or none") -> None:
        """Raise DatabaseUnavailableError unless the file is still in place."""
        if not self.is_in_place():
            raise DatabaseUnavailableError(
                f"The database {self._path} is no longer the one that was opened: {why}. Was its "
                "folder deleted or replaced? Stop the server, look after the folder, and start it "
                "again.",
                code="storage_unavailable",
            )

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Turn SQLite's errors about its file and disk into StorageErrors."""
        try:
            yield
        except DatabaseError as error:
            reason = str(error.orig)
            if "malformed" in reason or "not a database" in reason:
                raise DatabaseUnavailableError(
                    f"The database {self._path} is damaged ({reason}). Stop the server, keep the "
                    "folder, and start from the last backup (`emojitune backup`).",
                    code="database_damaged",
                ) from error
            if not isinstance(error, OperationalError):
                raise
            self.require_in_place(reason)
            if "full" in reason:
                raise disk.disk_full_error(self._path) from error
            if "readonly" in reason:
                raise disk.read_only_error(self._path) from error
            if "locked" in reason:
                raise DatabaseUnavailableError(
                    f"The database {self._path} was busy for {_BUSY_SECONDS} s: another process "
                    "kept it to itself. Try again.",
                    code="storage_busy",
                ) from error
            if "disk I/O error" in reason or "unable to open" in reason:
                raise DatabaseUnavailableError(
                    f"The database {self._path} can no longer be read or written ({reason}). Look "
                    "after its disk, then start the server again.",
                    code="storage_unavailable",
                ) from error
            raise

    def _current(self) -> Connection | None:
        return getattr(self._open, "connection", None)


def open_database(home: Path, clock: Callable[[], float] = time.time) -> Database:
    """Open the database under `home`, created and migrated if necessary.

    Raises:
        ConfigurationError: The folder cannot be used, the file is no database, or a newer
            emojitune wrote it.
    """
    path = home / "emojitune.db"
    try:
        make_home(home)
        _migrate_if_outdated(path)
    except (OSError, sqlite3.DatabaseError, DatabaseError) as error:
        raise ConfigurationError(
            f"The home folder must be writable and hold emojitune's own database; {path} cannot "
            f"be used: {error}. Choose another folder with --home or EMOJITUNE_HOME.",
            param="home",
        ) from error
    return Database(_engine(path), path, clock)


def make_home(home: Path) -> None:
    """Make the folder of a home, for its owner alone: messages are in its database.

    Raises:
        ConfigurationError: No folder can have this name.
    """
    with _home_errors(home):
        disk.make_private_folder(home)


def check_home(home: Path) -> None:
    """Check that a home is a folder or could be made, without making it.

    Raises:
        ConfigurationError: No folder can have this name.
    """
    with _home_errors(home):
        nearest = next(path for path in (home, *home.absolute().parents) if _is_there(path))
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{nearest} is no folder")


def _is_there(path: Path) -> bool:
    try:
        path.lstat()  # a link that leads nowhere is in the way
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _home_errors(home: Path) -> AbstractContextManager[None]:
    return disk.folder_errors(home, "home", "--home or EMOJITUNE_HOME")


def newest_revision() -> str:
    """The revision that this code expects: the highest number in `migrations/versions`."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _migrate_if_outdated(path: Path) -> None:
    # Importing and running Alembic costs a quarter of a second: not when there is nothing to do.
    newest = newest_revision()
    if _revision(path) == newest:
        return
    with FileLock(path.with_suffix(".lock")):
        current = _revision(path)
        if current > newest:
            raise ConfigurationError(
                f"{path} has schema {current}, written by a newer emojitune; this one knows "
                f"{newest}. Update emojitune, or choose another home folder.",
                param="home",
            )
        if current < newest:
            _migrate(path)


def _revision(path: Path) -> str:
    """The revision that Alembic stored in the file; empty when there is none yet."""
    if not path.exists():
        return ""
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        row = None
    finally:
        connection.close()
    return row[0] if row else ""


def _migrate(path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    if not path.exists():  # SQLite would make it readable for everybody, and its log like it
        disk.open_private(path).close()
    engine = _engine(path)
    with engine.connect() as connection:
        # A property of the file. Set outside of a transaction, and only under our caller's lock.
        connection.connection.cursor().execute("PRAGMA journal_mode = WAL")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with Database(engine, path).transaction() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()


def _engine(path: Path) -> Engine:
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", _set_up_connection)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "before_execute", _require_scope)
    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _set_up_connection(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's driver begins transactions late and only for some statements; `_begin` does it.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")  # a committed write survives a power failure


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _require_scope(_connection: Connection, statement: Any, *_: Any) -> None:
    """Refuse a statement that names no project before it reaches the database."""
    if isinstance(statement, Select | UpdateBase) and "scoped" not in (
        statement.get_execution_options()
    ):
        owned = any("project" in table.c for table in find_tables(statement, include_crud=True))
        if owned:  # no assertion: it must hold under `python -O` too
            raise RuntimeError(
                f"Whose rows? A statement must begin at scope.ScopedTable: {statement}"
            )
