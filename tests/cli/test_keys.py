import json
import sys
from pathlib import Path
from typing import Any

import pytest

from emojitune.cli import main as command_line
from emojitune.store.database import open_database
from emojitune.store.keys import KeyStore


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "of-keys"


@pytest.fixture
def emojitune(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs `emojitune keys ...` on a home folder: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        command = ["emojitune", "keys", *arguments, "--home", str(home)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_a_key_is_created_shown_once_listed_and_revoked(emojitune, home: Path) -> None:
    code, out, err = emojitune("create", "--project", "team", "--name", "laptop")
    secret, note = out.splitlines()
    assert (code, err) == (0, "")
    assert secret.startswith("sk-emojitune-")
    database = open_database(home)
    keys = KeyStore(database)
    key = keys.find(secret)
    assert key is not None
    assert (key.project, key.name) == ("team", "laptop")
    assert note.startswith(f"{key.id}, for the project team.")
    _, listed, _ = emojitune("list")
    assert all(word in listed for word in (key.id, "team", "laptop"))
    assert secret not in listed
    assert emojitune("revoke", key.id)[1] == f"{key.id}: revoked\n"
    assert keys.find(secret) is None
    database.close()


def test_json_output_is_one_object(emojitune) -> None:
    _, out, err = emojitune("create", "--json")
    made: dict[str, Any] = json.loads(out)
    secret = made.pop("key")
    assert made["project"] == "default"
    assert secret not in err
    [listed] = json.loads(emojitune("list", "--json")[1])
    assert listed == made
    revoked = json.loads(emojitune("revoke", made["id"], "--json")[1])
    assert revoked == {**made, "revoked_at": revoked["revoked_at"]}
    assert revoked["revoked_at"] >= made["created_at"]


def test_mistakes_get_an_error_message(emojitune) -> None:
    code, _, err = emojitune("create", "--project", "../x")
    assert (code, "A project's name" in err) == (1, True)
    code, _, err = emojitune("revoke", "key_x")
    assert (code, "There is no key key_x" in err) == (1, True)
