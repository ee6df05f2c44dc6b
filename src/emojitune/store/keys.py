"""API keys: each acts for a project, and only its SHA-256 is kept.

A fast hash is enough: a key is 32 random bytes, which nobody finds by trying, at any speed. Slow,
salted hashes are for passwords, which people choose, and would slow every request down.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from emojitune.errors import InvalidRequestError, NotFoundError
from emojitune.store import tables
from emojitune.store.database import Database
from emojitune.store.ids import new_id
from emojitune.store.scope import EVERY_PROJECT, ScopedTable

_keys = tables.keys
_BYTES = 32
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_MAX_NAME_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Key:
    """A key's row: everything but the secret itself."""

    id: str
    project: str
    name: str
    created_at: int
    revoked_at: int | None


class KeyStore:
    """The keys of every project, as rows of `database`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = ScopedTable(_keys, EVERY_PROJECT)

    def create(self, project: str, name: str = "") -> tuple[Key, str]:
        """Create a key for a project; also returns its secret, which cannot be read again.

        Raises:
            InvalidRequestError: The project or the name has other characters, or too many.
        """
        _require_names(project, name)
        secret = new_secret()
        key = Key(new_id("key_"), project, name, self._database.now(), None)
        row = {
            "id": key.id,
            "name": name,
            "sha256": digest_of(secret),
            "created_at": key.created_at,
        }
        with self._database.transaction() as connection:
            connection.execute(ScopedTable(_keys, project).insert(row))
        return key, secret

    def list(self) -> Sequence[Key]:
        """Every key, the oldest first, revoked ones too."""
        with self._database.read() as connection:
            rows = connection.execute(self._rows.select().order_by(_keys.c.number))
            return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> Key:
        """Revoke a key; it is refused from the next request on.

        Raises:
            NotFoundError: There is none of this id.
        """
        this = _keys.c.id == key_id
        with self._database.transaction() as connection:
            valid = self._rows.update().where(this, _keys.c.revoked_at.is_(None))
            connection.execute(valid.values(revoked_at=self._database.now()))
            row = connection.execute(self._rows.select().where(this)).one_or_none()
        if row is None:
            raise NotFoundError(
                f"There is no key {key_id}. `emojitune keys list` shows those there are.",
                param="id",
            )
        return _key(row)

    def find(self, secret: str) -> Key | None:
        """The valid key with this secret, if there is one."""
        digest = digest_of(secret)
        query = self._rows.select().where(_keys.c.sha256 == digest, _keys.c.revoked_at.is_(None))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        # The index compares digests, of which nobody can choose a byte; this takes constant time.
        matches = row is not None and hmac.compare_digest(row.sha256, digest)
        return _key(row) if row is not None and matches else None


def new_secret() -> str:
    """A new random key."""
    return f"sk-emojitune-{secrets.token_urlsafe(_BYTES)}"


def digest_of(secret: str) -> str:
    """The SHA-256 of a key, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _require_names(project: str, name: str) -> None:
    if not _PROJECT.fullmatch(project):
        raise InvalidRequestError(
            "A project's name has up to 64 letters, digits, '.', '_' and '-', and begins with a "
            f"letter or a digit; {project!r} is none.",
            param="project",
        )
    if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidRequestError(
            f"A key's name has up to {_MAX_NAME_LENGTH} printable characters, and {name!r} has "
            "others or more.",
            param="name",
        )


def _key(row: Row[Any]) -> Key:
    return Key(row.id, row.project, row.name, row.created_at, row.revoked_at)
