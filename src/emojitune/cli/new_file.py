"""A file that a command writes: it appears whole, and in no other file's place."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from emojitune.disk import open_derived, sync
from emojitune.errors import InvalidRequestError


def write_new(path: Path, source: Path, lines: Iterable[str]) -> None:
    """Write lines to a file that is not there yet; whoever may read `source` may read it.

    Raises:
        InvalidRequestError: It is there, or cannot be written.
    """
    staging = path.with_name(f".emojitune-{token_hex(8)}")
    require_new(path)
    try:
        with open_derived(staging, source) as out:
            out.writelines(line + "\n" for line in lines)
        sync(staging)
        os.link(staging, path)  # not os.replace: it fails where a file has appeared meanwhile
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written ({error.strerror}). Check its folder and the free space."
        ) from error
    finally:
        with suppress(OSError):
            staging.unlink(missing_ok=True)


def require_new(path: Path) -> None:
    """Look whether `write_new` would find a file there.

    Raises:
        InvalidRequestError: It would.
    """
    if os.path.lexists(path):
        raise _is_there(path)


def _is_there(path: Path) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path} is there already. Nothing is overwritten: move it away, or name another file."
    )
