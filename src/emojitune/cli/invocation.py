"""How the user invoked this program, so that printed commands can be pasted into the shell."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from emojitune.control_chars import escape_control

NAME = "emojitune"


def program() -> str:
    """The program for a shell: its name if the PATH resolves it to this one, else as invoked."""
    invoked = sys.argv[0]
    if Path(invoked).name == "main.py":  # python -m
        return shlex.join([sys.executable, "-m", "emojitune.cli.main"])
    return NAME if _is_on_path(invoked) else _quoted(invoked)


def command(*words: object) -> str:
    """A command line of this program, quoted for a shell."""
    return " ".join((program(), *(_quoted(str(word)) for word in words)))


def as_invoked(message: str) -> str:
    """A message from a lower layer, with the program in its `commands` as the user invoked it."""
    return message.replace(f"`{NAME} ", f"`{program()} ")


def _quoted(word: str) -> str:
    """A word for a shell; unprintable bytes are escaped as in bash and zsh."""
    if escape_control(word) == word:
        return shlex.quote(word)
    escaped = (
        chr(b) if 31 < b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(word)
    )
    return f"$'{''.join(escaped)}'"


def _is_on_path(invoked: str) -> bool:
    installed = shutil.which(NAME)
    try:
        return invoked == NAME or (installed is not None and os.path.samefile(installed, invoked))
    except OSError:
        return False
