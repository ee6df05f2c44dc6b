"""The SQLite database of a home folder: opened, migrated, and handed out in transactions.

Knows no table but Alembic's own; of the others only that rows with a `project` belong to it, so
that a statement on them has to say whose it means (`store/projects.py`).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import URL, Connection, Engine, Select, UpdateBase, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.sql.util import find_tables

from emojitune.errors import ConfigurationError

MIGRATIONS = Path(__file__).parent / "migrations"
SCOPED = {"scoped": True}  # the execution option of a statement that says whose rows it means
_BUSY_SECONDS = 30


class Database:
    """Short transactions on one SQLite file; threads and processes may share it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; waits for nobody."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """The one writer: takes the write lock at once, so that reads inside it stay true."""
        options = {"begin": "BEGIN IMMEDIATE"}
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._engine.dispose()


def open_database(home: Path) -> Database:
    """Open the database under `home`, made and brought up to date if need be.

    Raises:
        ConfigurationError: The folder cannot be used, the file is no database, or a newer
            emojitune wrote it.
    """
    path = home / "emojitune.db"
    try:
        make_home(home)
        _bring_up_to_date(path)
    except (OSError, sqlite3.DatabaseError, DatabaseError) as error:
        raise ConfigurationError(
            f"The home folder must be writable and hold emojitune's own database; {path} cannot "
            f"be used: {error}. Choose another folder with --home or EMOJITUNE_HOME.",
            param="home",
        ) from error
    return Database(_engine(path))


def make_home(home: Path) -> None:
    """The folder of a home, for its owner alone: messages are in its database."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)


def newest_revision() -> str:
    """The revision that this code is written for: the highest number in `migrations/versions`."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def _bring_up_to_date(path: Path) -> None:
    # Importing and running Alembic costs a quarter of a second: not when there is nothing to do.
    newest = newest_revision()
    if _revision(path) == newest:
        return
    with FileLock(path.with_suffix(".lock")):
        found = _revision(path)
        if found > newest:
            raise ConfigurationError(
                f"{path} has schema {found}, written by a newer emojitune; this one knows "
                f"{newest}. Update emojitune, or choose another home folder.",
                param="home",
            )
        if found < newest:
            _migrate(path)


def _revision(path: Path) -> str:
    """The revision that Alembic noted in the file; empty when there is none yet."""
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

    engine = _engine(path)
    with engine.connect() as connection:
        # Stays with the file. Not inside a transaction, and only under the lock of our caller.
        connection.connection.cursor().execute("PRAGMA journal_mode = WAL")
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with Database(engine).write() as connection:
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


def _set_up_connection(connection: sqlite3.Connection, _record: Any) -> None:
    # Python's driver begins transactions late and only for some statements; `_begin` does it.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


def _require_scope(_connection: Connection, statement: Any, *_: Any) -> None:
    """A statement that forgets whose rows it means never reaches the database."""
    if isinstance(statement, Select | UpdateBase) and "scoped" not in (
        statement.get_execution_options()
    ):
        owned = any("project" in table.c for table in find_tables(statement, include_crud=True))
        if owned:  # no assertion: it must hold under `python -O` too
            raise RuntimeError(f"Whose rows? A statement must begin at projects.Rows: {statement}")
