"""How a command ends: its exit code, and one sentence on stderr for whatever broke it.

Knows no command. What is neither an error of ours nor of the system is a fault of this program, and
keeps its traceback.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from typer.exceptions import TyperException

from emojitune.cli.program import command
from emojitune.errors import ConfigurationError, EmojituneError, InvalidRequestError

INTERRUPTED = 130  # 128 and the number of SIGINT, as shells count
_OUTPUT = "<stdout>"


class _Output:
    """Standard output, whose errors bear its name."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._named():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._named():
            self._stream.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _discard(self._stream)
            error.filename = _OUTPUT
            raise


def prepare_streams() -> None:
    """What cannot be shown or is no text becomes a question mark, and no traceback."""
    # Closed, its number would be that of the next file, and what a library writes would go there.
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def exit_code(command: Callable[[], Any]) -> int:
    """Run `command`; returns what it returned, or what goes with the way that it broke."""
    try:
        if sys.stdout is None:  # closed from the start
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), _OUTPUT)
        with redirect_stdout(cast(TextIO, _Output(sys.stdout))) as output:
            code = int(command() or 0)
            output.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError as error:
        return 1 if error.filename == _OUTPUT else _tell(error)  # who reads has read enough
    except Exception as error:
        return _tell(error)
    if code == INTERRUPTED:
        _show("Interrupted.")
    return code


def _tell(error: Exception) -> int:
    if isinstance(error, TyperException):
        _show(_usage(error))
        return error.exit_code
    known = _in_words(error)
    if known is None:
        raise error
    code = f" [{known.code}]" if known.code else ""  # helps whoever searches for it
    _show(f"Error{code}: {known.message}")
    return 1


def _show(text: str) -> None:
    from emojitune.cli.render import show_error

    try:
        show_error(text)
    except OSError:
        _discard(sys.stderr)


def _usage(error: TyperException) -> str:
    """Typer's sentence; nothing where it has just shown the help."""
    said = error.format_message()
    context = getattr(error, "ctx", None)
    if not said or context is None:
        return said
    _, *words = context.command_path.split()
    return f"Error: {said.removesuffix('.')}. See: {command(*words, '--help')}"


def _in_words(error: Exception) -> EmojituneError | None:
    if isinstance(error, EmojituneError):
        return error
    if isinstance(error, UnicodeError) and (given := _not_utf8()):
        return InvalidRequestError(f"Text must be UTF-8, and this is not: {given}.")
    if isinstance(error, OSError):
        return _refused(error)
    return None


def _not_utf8() -> str:
    """The arguments that are no text, and the variables, whose values may be secret, by name."""
    variables = (name for name, value in os.environ.items() if not _is_text(value))
    arguments = (one for one in sys.argv[1:] if not _is_text(one))
    return ", ".join((*arguments, *variables))


def _is_text(value: str) -> bool:
    return not any("\ud800" <= one <= "\udfff" for one in value)


def _refused(error: OSError) -> EmojituneError:
    if error.filename == _OUTPUT:
        message = f"Standard output takes nothing: {error.strerror}. Send it somewhere else."
        return ConfigurationError(message)
    try:
        Path.cwd()
    except OSError:
        return ConfigurationError("The folder you are in no longer exists. Change to another one.")
    where = f" for {error.filename}" if error.filename else ""
    return ConfigurationError(f"The system refused this{where}: {error.strerror or error}.")


def _discard(stream: TextIO) -> None:
    """Let what a stream did not take go nowhere: at the end Python tries it once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
