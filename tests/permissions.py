"""Who may read what was written, for tests of it."""

from collections.abc import Iterator
from pathlib import Path


def mode(path: Path) -> str:
    """What its owner, its group and others may do, as `chmod` takes it."""
    return f"{path.stat().st_mode & 0o777:o}"


def modes(folder: Path) -> set[tuple[str, str]]:
    """The kinds of all that is in a folder, itself included, each with its modes."""
    return {("folder" if p.is_dir() else "file", mode(p)) for p in (folder, *folder.rglob("*"))}


def in_reach(folder: Path) -> Iterator[str]:
    """What others may list or read in a folder that is open to them, empty files left out."""
    for path in folder.iterdir():
        if not path.stat().st_mode & 0o077:
            continue
        if path.is_dir():
            yield f"{path}/"
            yield from in_reach(path)
        elif path.stat().st_size:
            yield str(path)
