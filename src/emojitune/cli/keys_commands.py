"""Commands on who gets in: `emojitune keys ...`."""

from typing import Annotated

import typer

from emojitune.cli.context import AsJson, Home, open_screen, read_settings

keys = typer.Typer(help="Who gets in: keys of the local server.", no_args_is_help=True)


@keys.command("create")
def keys_create(
    project: Annotated[
        str, typer.Option(help="What the key sees is this project's alone.")
    ] = "default",
    name: Annotated[str, typer.Option(help="Whose it is, for the list.")] = "",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Make a key for a project; it is shown this once."""
    from emojitune.cli import keys as commands

    screen = open_screen(as_json)
    screen.result(commands.create(project, name, read_settings(home=home), screen))


@keys.command("list")
def keys_list(home: Home = None, as_json: AsJson = False) -> None:
    """List the keys that were made, without the keys themselves."""
    from emojitune.cli import keys as commands

    screen = open_screen(as_json)
    screen.result(commands.list_keys(read_settings(home=home), screen))


@keys.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The id of a key: key_...")],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """End a key at once, on a running server too."""
    from emojitune.cli import keys as commands

    screen = open_screen(as_json)
    screen.result(commands.revoke(key, read_settings(home=home), screen))
