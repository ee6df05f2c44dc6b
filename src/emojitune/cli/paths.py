"""Files named on the command line, `-` for standard input among them, and files that are written.

Standard input is copied to a temporary file while the command runs: a training file is read more
than once, a pipe cannot be.
"""

import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

import typer

from emojitune.disk import fsync, open_derived
from emojitune.errors import InvalidRequestError

_stdin_copies: set[Path] = set()  # made by this process


def expand_user(file: Path | None) -> Path | None:
    """An option's path with `~` resolved, which a shell does not do in `--option=~/file`."""
    return file and Path(os.path.expanduser(file))


def read_stdin(context: typer.Context, file: Path | None) -> Path | None:
    """An option's path, or the path of a copy of standard input if the option is `-`."""
    if file != Path("-"):
        return expand_user(file)
    if "standard input" in context.meta:
        raise InvalidRequestError(
            "Standard input can be read for one file only, and - was given for two. "
            "Name the other one."
        )
    if sys.stdin is None:
        raise InvalidRequestError("- is standard input, which is closed here. Name a file.")
    context.meta["standard input"] = True
    folder = TemporaryDirectory(prefix="emojitune-stdin-")
    context.find_root().call_on_close(folder.cleanup)
    path = Path(folder.name) / "stdin.jsonl"
    with path.open("wb") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
    _stdin_copies.add(path)
    return path


def display_name(file: Path) -> str:
    """The name of a file in messages: its path, or "standard input"."""
    return "standard input" if file in _stdin_copies else str(file)


def output_path(file: Path, suffix: str) -> Path:
    """The path of a file derived from `file`: next to it, or for standard input in the working
    folder."""
    path = file.with_suffix(suffix)
    return Path(path.name) if file in _stdin_copies else path


def write_new(path: Path, source: Path, lines: Iterable[str]) -> None:
    """Write lines to a new file, atomically, with the permissions of `source`.

    Raises:
        InvalidRequestError: The file exists or cannot be written.
    """
    staging = path.with_name(f".emojitune-{token_hex(8)}")
    require_new(path)
    try:
        with open_derived(staging, source) as out:
            out.writelines(line + "\n" for line in lines)
        fsync(staging)
        os.link(staging, path)  # unlike os.replace, fails if the file was created meanwhile
    except FileExistsError:
        raise _exists_error(path) from None
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written ({error.strerror}). Check its folder and the free space."
        ) from error
    finally:
        with suppress(OSError):
            staging.unlink(missing_ok=True)


def require_new(path: Path) -> None:
    """Raise what `write_new` would raise if the file exists.

    Raises:
        InvalidRequestError: The file exists.
    """
    if os.path.lexists(path):
        raise _exists_error(path)


def _exists_error(path: Path) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} exists already. Nothing is overwritten: move it away, or name another file."
    )
