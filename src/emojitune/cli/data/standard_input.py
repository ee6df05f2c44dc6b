"""What stands for a FILE: its path, or `-`: standard input, kept as a file while the command runs.

A file is checked, mended, cut and uploaded, and so read more than once; a pipe can be read once.
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from emojitune.errors import InvalidRequestError

_spooled: set[Path] = set()  # by this process


def expand_user(file: Path | None) -> Path | None:
    """The file that was named; of `--option=~/file` a shell leaves the `~` as it is."""
    return file and Path(os.path.expanduser(file))


def or_standard_input(context: typer.Context, file: Path | None) -> Path | None:
    """The file that was named, or the one that standard input was put into."""
    if file != Path("-"):
        return expand_user(file)
    if "standard input" in context.meta:
        raise InvalidRequestError(
            "Standard input can be read for one file, and - stands for two. Name the other one."
        )
    if sys.stdin is None:
        raise InvalidRequestError("- is standard input, and there is none here. Name a file.")
    context.meta["standard input"] = True
    folder = TemporaryDirectory(prefix="emojitune-stdin-")
    context.find_root().call_on_close(folder.cleanup)
    kept = Path(folder.name) / "stdin.jsonl"
    with kept.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    _spooled.add(kept)
    return kept


def title(file: Path) -> str:
    """What a person is told of a file: its path, or that it is standard input."""
    return "standard input" if file in _spooled else str(file)


def beside(file: Path, suffix: str) -> Path:
    """The path of what is made of a file: beside it, of standard input in the working folder."""
    made = file.with_suffix(suffix)
    return Path(made.name) if file in _spooled else made
