"""A file that a command writes: it appears whole, and in no other file's place."""

import os
from collections.abc import Iterable
from pathlib import Path

from emojitune.disk import open_derived, sync
from emojitune.errors import InvalidRequestError


def write_new(path: Path, source: Path, lines: Iterable[str]) -> None:
    """Write lines to a file that is not there yet; whoever may read `source` may read it.

    Raises:
        InvalidRequestError: It is there, or cannot be written.
    """
    if os.path.lexists(path):
        raise InvalidRequestError(
            f"{path} is there already. Nothing is overwritten: move it away, or name another file."
        )
    staging = path.with_name(f".{path.name}.partial")
    try:
        staging.unlink(missing_ok=True)
        with open_derived(staging, source) as out:
            out.writelines(line + "\n" for line in lines)
        sync(staging)
        os.replace(staging, path)
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written ({error.strerror}). "
            "Look at its folder, and at the space that is left."
        ) from error
    finally:
        staging.unlink(missing_ok=True)
