"""How the user calls this program, so that the commands that are printed can be pasted."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from emojitune.control_chars import escape_control

NAME = "emojitune"


def program() -> str:
    """The program as a shell takes it: its name where that leads here, else as it was called."""
    called = sys.argv[0]
    if Path(called).name == "main.py":  # python -m
        return shlex.join([sys.executable, "-m", "emojitune.cli.main"])
    return NAME if _is_on_path(called) else _quoted(called)


def command(*words: object) -> str:
    """A command of this program, quoted for a shell."""
    return " ".join((program(), *(_quoted(str(word)) for word in words)))


def as_called(message: str) -> str:
    """A message of the engine room, which knows the program only by its name."""
    return message.replace(f"`{NAME} ", f"`{program()} ")


def _quoted(word: str) -> str:
    """A word for a shell; bytes that cannot be shown as bash and zsh read them."""
    if escape_control(word) == word:
        return shlex.quote(word)
    shown = (
        chr(b) if 31 < b < 127 and b not in b"'\\" else f"\\x{b:02x}" for b in os.fsencode(word)
    )
    return f"$'{''.join(shown)}'"


def _is_on_path(called: str) -> bool:
    found = shutil.which(NAME)
    try:
        return called == NAME or (found is not None and os.path.samefile(found, called))
    except OSError:
        return False
