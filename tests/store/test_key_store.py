import hashlib

import pytest
from sqlalchemy import text

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.store.database import Database
from emojitune.store.keys import KeyStore


@pytest.fixture
def keys(database: Database) -> KeyStore:
    return KeyStore(database)


def test_a_key_acts_for_its_project_until_it_is_revoked(keys: KeyStore) -> None:
    key, secret = keys.create("team", "laptop")
    assert keys.find(secret) == key
    assert keys.find(secret + "x") is keys.find("") is None
    revoked = keys.revoke(key.id)
    assert revoked.revoked_at
    assert keys.find(secret) is None
    assert keys.revoke(key.id) == revoked
    assert keys.list() == [revoked]
    with pytest.raises(NotFoundError, match="key_x"):
        keys.revoke("key_x")


def test_only_a_hash_is_kept(keys: KeyStore, database: Database) -> None:
    secrets = [keys.create("team")[1] for _ in range(2)]
    assert len(set(secrets)) == 2
    assert all(len(secret) > 50 for secret in secrets)
    with database.read() as connection:
        rows = connection.execute(text("SELECT * FROM keys")).all()
    for secret, row in zip(secrets, rows, strict=True):
        assert hashlib.sha256(secret.encode()).hexdigest() == row.sha256
        assert all(secret[12:20] not in str(value) for value in row)


@pytest.mark.parametrize("project", ["", "a b", "../x", "ä", "-x", "x" * 65, "a\n"])
def test_projects_have_plain_names(keys: KeyStore, project: str) -> None:
    with pytest.raises(InvalidRequestError, match="A project's name"):
        keys.create(project)


def test_a_name_is_a_line_that_can_be_printed(keys: KeyStore) -> None:
    for name in ("x" * 101, "a\nb", "\x1b[31m"):
        with pytest.raises(InvalidRequestError, match="A key's name"):
            keys.create("team", name)
