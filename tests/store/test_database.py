import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from emojitune.errors import ConfigurationError
from emojitune.store import tables
from emojitune.store.database import MIGRATIONS, Database, newest_revision, open_database


def test_the_migrations_make_the_tables_that_the_code_expects(database: Database) -> None:
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_the_newest_revision_is_alembics_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == newest_revision()


def test_the_database_is_in_wal_mode_with_foreign_keys_and_patience(database: Database) -> None:
    with database.read() as connection:
        pragmas = [
            connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "foreign_keys", "busy_timeout", "synchronous")
        ]
    assert pragmas == ["wal", 1, 30_000, 2]


def test_a_failed_write_leaves_nothing(database: Database) -> None:
    columns = "name, created_at, job_id, base, hosted_name, adapter"
    good = f"INSERT INTO fine_tuned_models ({columns}) VALUES ('m', 1, 'j', 'b', 'h', 'a')"

    def write_and_fail() -> None:
        with database.transaction() as connection:
            connection.execute(text(good))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM fine_tuned_models")) == 0


def test_opening_an_up_to_date_home_does_not_load_alembic(
    database: Database, tmp_path: Path
) -> None:
    script = (
        "import sys, pathlib; from emojitune.store.database import open_database; "
        "open_database(pathlib.Path(sys.argv[1])); print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "home")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_several_processes_may_open_a_new_home_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from emojitune.store.database import open_database; "
        "open_database(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "home")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]


def test_a_home_of_a_newer_emojitune_is_left_alone(database: Database, tmp_path: Path) -> None:
    with database.transaction() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="written by a newer emojitune"):
        open_database(tmp_path / "home")


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "emojitune.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        open_database(tmp_path)


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(ConfigurationError, match="Choose another folder"):
        open_database(tmp_path / "home")
