"""Permissions of files and folders, for tests."""

from collections.abc import Iterator
from pathlib import Path


def mode(path: Path) -> str:
    """The permission bits in octal, as `chmod` takes them."""
    return f"{path.stat().st_mode & 0o777:o}"


def modes(folder: Path) -> set[tuple[str, str]]:
    """("file" or "folder", mode) of everything in a folder, itself included."""
    return {("folder" if p.is_dir() else "file", mode(p)) for p in (folder, *folder.rglob("*"))}


def exposed_paths(folder: Path) -> Iterator[str]:
    """Everything in an open folder that others may list or read, except empty files."""
    for path in folder.iterdir():
        if not path.stat().st_mode & 0o077:
            continue
        if path.is_dir():
            yield f"{path}/"
            yield from exposed_paths(path)
        elif path.stat().st_size:
            yield str(path)
