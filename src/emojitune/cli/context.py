"""Options that several commands have, and the settings, screen and connection that they open.

Functions return Any: importing their types would slow down --help.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from emojitune.cli.paths import read_stdin


def _require_text(name: str) -> str:
    if not name.strip():
        raise typer.BadParameter("it is empty. Is the shell variable set?")
    return name


def _default_to_local(provider: str) -> str:
    """The value of --provider; an empty one is `local`."""
    return provider.strip() or "local"


# Settings among the options stay strings: settings.py resolves the paths in them.
Home = Annotated[
    str | None,
    typer.Option(
        "--home",
        metavar="<path>",
        help="Home folder of the local server, with all its data.",
        show_default=False,
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider", help="local, openai, or the base URL of a server.", callback=_default_to_local
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The id of a job: ftjob-...", callback=_require_text)
]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="The name of a model.", callback=_require_text)
]
DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A JSONL file of examples; - is standard input.",
        callback=read_stdin,
    ),
]
TRAIN = Path("data/emoji_ft_train.jsonl")
VALID = Path("data/emoji_ft_valid.jsonl")


def open_screen(as_json: bool = False) -> Any:
    from emojitune.cli.render import Screen

    return Screen(as_json=as_json)


def read_settings(**options: Any) -> Any:
    """Settings from the environment and from the options that are not empty."""
    from pydantic import ValidationError

    from emojitune.errors import ConfigurationError
    from emojitune.settings import Settings

    try:
        return Settings(**{name: value for name, value in options.items() if not _is_blank(value)})
    except ValidationError as error:
        problems = "; ".join(
            f"{one['loc'][0]}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
        )
        raise ConfigurationError(
            f"These settings cannot be used: {problems}. "
            "Look at the command's options and at the EMOJITUNE_* environment variables."
        ) from None


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def connect_to(provider: str, home: str | None) -> Any:
    from emojitune.workflow.provider import connect

    return connect(provider, read_settings(home=home), prompt_for_key=prompt_for_key)


def location_options(provider: str, settings: Any) -> tuple[str, ...]:
    """The options that make another command use the same provider or home folder."""
    if provider != "local":
        return "--provider", provider
    return ("--home", str(settings.home)) if "home" in settings.model_fields_set else ()


def prompt_for_key(prompt: str) -> str:
    """A key typed by the user; empty without a terminal."""
    from getpass import getpass

    with suppress(EOFError):  # Ctrl-D
        return getpass(prompt) if sys.stdin is not None and sys.stdin.isatty() else ""
    return ""
