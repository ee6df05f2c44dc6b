"""`emojitune data convert`: chat lines of a file in another format, and an account of its rows."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emojitune.cli.data.standard_input import beside, title
from emojitune.cli.new_file import write_new
from emojitune.cli.program import command
from emojitune.cli.render import Screen
from emojitune.dataset.conversion.convert import Converted, convert
from emojitune.dataset.conversion.formats import KNOWN
from emojitune.errors import DatasetError, InvalidRequestError, NotFoundError

_MOST_SHOWN = 20


def convert_file(file: Path, output: Path | None, screen: Screen) -> None:
    """Write the chat lines beside the file, or where they are asked for, and say what became of
    each row; --json carries the account even where nothing could be made."""
    if output == Path("-"):
        raise InvalidRequestError("--output names a file, and - is none. Name one.")
    try:
        made = convert(file)
    except OSError as error:
        raise NotFoundError(
            f"{title(file)} cannot be read ({error.strerror}). Check the path."
        ) from error
    name, target = title(file), output or beside(file, ".chat.jsonl")
    if made.lines and not made.needed:
        raise InvalidRequestError(
            f"{name} is in the chat's format already. "
            f"To see what is wrong with it: {command('data', 'check', name)}"
        )
    _show(made, name, screen)
    if made.lines:
        write_new(target, file, made.lines)
        counts = f"{len(made.lines)} chat line(s), {len(made.left_out)} row(s) left out"
        screen.say(f"{target}: {counts}")
        screen.say(f"Check them:  {command('data', 'check', target)}")
    screen.result(_account(made, target))
    if not made.lines:
        known = ", ".join(str(format) for format in KNOWN)
        raise DatasetError(
            f"{name} has no row that can be a chat line. The formats known here are {known}: "
            "bring its rows into one of them.",
            code="other_format",
        )


def _account(made: Converted, target: Path) -> dict[str, Any]:
    return {
        "path": str(target) if made.lines else None,
        "formats": made.formats,
        "converted": len(made.lines),
        "left_out": [asdict(row) for row in made.left_out],
        "not_carried_over": made.gone,
    }


def _show(made: Converted, name: str, screen: Screen) -> None:
    formats = ", ".join(f"{rows} {format}" for format, rows in made.formats.items())
    screen.say(f"{name}: {len(made.lines) + len(made.left_out)} row(s): {formats or 'none'}")
    for what, rows in made.gone.items():
        screen.say(f"not carried over: {what} ({rows} row(s))", style="cyan")
    for row in made.left_out[:_MOST_SHOWN]:
        screen.say(f"left out, line {row.line}: {row.reason}", style="yellow")
    more = made.left_out[_MOST_SHOWN:]
    if more:
        screen.say(f"... and {len(more)} more left out; --json lists all", style="yellow")
