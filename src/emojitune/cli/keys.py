"""Commands on the keys of the local server: `emojitune keys ...`.

They work on its home folder, whether the server runs or not. Only `create` shows a key's secret,
and only once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from emojitune.cli.context import AsJson, Home, open_screen, read_settings

keys = typer.Typer(help="API keys of the local server.", no_args_is_help=True)


@keys.command("create")
def keys_create(
    project: Annotated[
        str, typer.Option(help="The project whose data the key gives access to.")
    ] = "default",
    name: Annotated[str, typer.Option(help="Whose key it is, shown in the list.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Create a key for a project; it is shown only this once."""
    screen = open_screen(as_json)
    with _key_store(home) as store:
        key, secret = store.create(project, name)
    if not as_json:
        screen.say(secret)
        screen.say(f"{key.id}, for the project {project}. The key is not stored: copy it now.")
    screen.result({**asdict(key), "key": secret})


@keys.command("list")
def keys_list(home: Home = None, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    screen = open_screen(as_json)
    with _key_store(home) as store:
        listed = store.list()
    rows = [
        (key.id, key.project, key.name, _day(key.created_at), _day(key.revoked_at))
        for key in listed
    ]
    screen.table(("key", "project", "name", "created", "revoked"), rows)
    screen.result([asdict(key) for key in listed])


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The id of a key: key_...")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key at once, on a running server too."""
    screen = open_screen(as_json)
    with _key_store(home) as store:
        revoked = store.revoke(key)
    screen.say(f"{revoked.id}: revoked")
    screen.result(asdict(revoked))


@contextmanager
def _key_store(home: str | None) -> Iterator[Any]:
    from emojitune.store.database import open_database
    from emojitune.store.keys import KeyStore

    database = open_database(read_settings(home=home).home)
    try:
        yield KeyStore(database)
    finally:
        database.close()


def _day(seconds: int | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
