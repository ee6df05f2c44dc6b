"""Keys of the local server: made, listed and revoked in its home folder, whether it runs or not.

The one place where a key's secret is ever shown, and there once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from emojitune.cli.render import Screen
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.keys import KeyStore


def create(project: str, name: str, settings: Settings, screen: Screen) -> dict[str, Any]:
    """Make a key for a project and show it."""
    with _keys(settings) as keys:
        key, secret = keys.create(project, name)
    if not screen.as_json:
        screen.say(secret)
        screen.say(f"{key.id}, for the project {project}. The key is not kept: copy it now.")
    return {**asdict(key), "key": secret}


def list_keys(settings: Settings, screen: Screen) -> list[dict[str, Any]]:
    """Show all keys there are, without their secrets."""
    with _keys(settings) as keys:
        found = keys.list()
    rows = [
        (key.id, key.project, key.name, _day(key.created_at), _day(key.revoked_at)) for key in found
    ]
    screen.table(("key", "project", "name", "made", "revoked"), rows)
    return [asdict(key) for key in found]


def revoke(key_id: str, settings: Settings, screen: Screen) -> dict[str, Any]:
    """End a key."""
    with _keys(settings) as keys:
        key = keys.revoke(key_id)
    screen.say(f"{key.id}: revoked")
    return asdict(key)


@contextmanager
def _keys(settings: Settings) -> Iterator[KeyStore]:
    database = open_database(settings.home)
    try:
        yield KeyStore(database)
    finally:
        database.close()


def _day(seconds: int | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
