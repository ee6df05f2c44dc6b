"""Exit codes and error messages: one sentence on stderr for whatever ended a command.

Knows no command. An exception that is neither one of `emojitune.errors` nor an OSError is a bug of
this program and keeps its traceback.
"""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from typer.exceptions import TyperException

from emojitune.cli.invocation import command
from emojitune.errors import ConfigurationError, EmojituneError, InvalidRequestError

INTERRUPTED = 130  # 128 + SIGINT, the shells' convention
_OUTPUT = "<stdout>"


class _NamedStdout:
    """Standard output that sets `filename` on its errors, to distinguish them from others."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._naming_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._naming_errors():
            self._stream.flush()

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _redirect_to_devnull(self._stream)
            error.filename = _OUTPUT
            raise


def prepare_streams() -> None:
    """Make the standard streams replace what they cannot encode or decode, instead of failing."""
    # If stderr is closed, the next file that is opened gets its number, and with it what libraries
    # write to stderr.
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def exit_code(command: Callable[[], Any]) -> int:
    """Run `command` and return its exit code, or the one for the exception that ended it."""
    try:
        if sys.stdout is None:  # closed by the parent process
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), _OUTPUT)
        with redirect_stdout(cast(TextIO, _NamedStdout(sys.stdout))) as output:
            code = int(command() or 0)
            output.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError as error:
        return 1 if error.filename == _OUTPUT else _report(error)  # the reader of a pipe has left
    except Exception as error:
        return _report(error)
    if code == INTERRUPTED:
        _show_on_stderr("Interrupted.")
    return code


def _report(error: Exception) -> int:
    if isinstance(error, TyperException):
        _show_on_stderr(_usage_error(error))
        return error.exit_code
    user_error = _as_user_error(error)
    if user_error is None:
        raise error
    code = f" [{user_error.code}]" if user_error.code else ""  # searchable
    _show_on_stderr(f"Error{code}: {user_error.message}")
    return 1


def _show_on_stderr(text: str) -> None:
    from emojitune.cli.render import show_error

    try:
        show_error(text)
    except OSError:
        _redirect_to_devnull(sys.stderr)


def _usage_error(error: TyperException) -> str:
    """Typer's message with the command that shows the help; empty if the help was just shown."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    _, *words = context.command_path.split()
    return f"Error: {message.removesuffix('.')}. See: {command(*words, '--help')}"


def _as_user_error(error: Exception) -> EmojituneError | None:
    if isinstance(error, EmojituneError):
        return error
    if isinstance(error, UnicodeError) and (inputs := _undecodable_inputs()):
        return InvalidRequestError(f"Text must be UTF-8, and this is not: {inputs}.")
    if isinstance(error, OSError):
        return _system_error(error)
    return None


def _undecodable_inputs() -> str:
    """Command-line arguments that are not UTF-8, and the names of such environment variables, whose
    values may be secret."""
    variables = (name for name, value in os.environ.items() if not _is_utf8(value))
    arguments = (argument for argument in sys.argv[1:] if not _is_utf8(argument))
    return ", ".join((*arguments, *variables))


def _is_utf8(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _system_error(error: OSError) -> EmojituneError:
    if error.filename == _OUTPUT:
        message = f"Standard output cannot be written: {error.strerror}. Redirect it elsewhere."
        return ConfigurationError(message)
    try:
        Path.cwd()
    except OSError:
        return ConfigurationError("The folder you are in no longer exists. Change to another one.")
    where = f" for {error.filename}" if error.filename else ""
    return ConfigurationError(f"The system refused this{where}: {error.strerror or error}.")


def _redirect_to_devnull(stream: TextIO) -> None:
    """Discard the rest of a stream's buffer, which Python would try to write again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
