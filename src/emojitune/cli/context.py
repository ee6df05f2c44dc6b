"""What the commands share: their usual options, and what they open.

Functions return Any: naming their types would import what --help must not wait for.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from emojitune.cli.data.standard_input import or_standard_input


def _not_empty(name: str) -> str:
    if not name.strip():
        raise typer.BadParameter("it is empty. Is the variable set that stands here?")
    return name


def _or_local(given: str) -> str:
    """The provider that was named; an empty one counts as none."""
    return given.strip() or "local"


# Options that are settings are text here: settings.py says what a path in them means.
Home = Annotated[
    str | None,
    typer.Option(
        "--home",
        metavar="<path>",
        help="Folder of everything the local server keeps.",
        show_default=False,
    ),
]
Provider = Annotated[
    str,
    typer.Option(
        "--provider", help="local, openai, or the base URL of a server.", callback=_or_local
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="The id of a job: ftjob-...", callback=_not_empty)
]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="The name of a model.", callback=_not_empty)
]
DataFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="A JSONL file of examples; - is standard input.",
        callback=or_standard_input,
    ),
]
TRAIN = Path("data/emoji_ft_train.jsonl")
VALID = Path("data/emoji_ft_valid.jsonl")


def open_screen(as_json: bool = False) -> Any:
    from emojitune.cli.render import Screen

    return Screen(as_json=as_json)


def read_settings(**given: Any) -> Any:
    """Settings from the environment and from the options that were given, but for empty ones."""
    from pydantic import ValidationError

    from emojitune.errors import ConfigurationError
    from emojitune.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if not _is_blank(value)})
    except ValidationError as error:
        wrong = "; ".join(
            f"{one['loc'][0]}: {one['msg'].removeprefix('Value error, ')}" for one in error.errors()
        )
        raise ConfigurationError(
            f"These settings cannot be used: {wrong}. "
            "Look at the command's options and at the EMOJITUNE_* environment variables."
        ) from None


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def connect_to(provider: str, home: str | None) -> Any:
    from emojitune.workflow.provider import connect

    return connect(provider, read_settings(home=home), ask_key=ask_key)


def options_to(provider: str, settings: Any) -> tuple[str, ...]:
    """The options that lead another command to the same place."""
    if provider != "local":
        return "--provider", provider
    return ("--home", str(settings.home)) if "home" in settings.model_fields_set else ()


def ask_key(prompt: str) -> str:
    """The key typed by hand; nothing when there is no one to type it."""
    from getpass import getpass

    with suppress(EOFError):  # Ctrl-D
        return getpass(prompt) if sys.stdin is not None and sys.stdin.isatty() else ""
    return ""
