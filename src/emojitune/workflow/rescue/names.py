"""File names that are safe on every file system, for ids and file names that are not.

A provider's id may have colons (`ft:...:id`), and two ids may differ only in case, which Windows
and macOS do not distinguish.
"""

import hashlib
import re

MAX_LENGTH = 100  # file systems allow 255 bytes, Windows 260 characters for the whole path

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # Windows' devices


def safe_name(name: str) -> str:
    """`name` in ASCII letters, digits, `.`, `_` and `-`; different names may become the same."""
    safe = _UNSAFE.sub("_", name).strip(
        "."
    )  # Windows drops dots at the end; at the start they hide
    if not re.search("[A-Za-z0-9]", safe):
        safe = "unnamed"
    if _RESERVED.match(safe):
        safe = f"_{safe}"
    return safe if len(safe) <= MAX_LENGTH else _with_digest(safe, name, 8)


class Names:
    """The names in one folder, no two of which are the same without regard to case."""

    def __init__(self) -> None:
        self._originals: dict[str, str] = {}

    def add(self, safe: str, original: str) -> None:
        """Reserve a name that was given to `original` earlier."""
        self._originals[safe.lower()] = original

    def name(self, original: str) -> str:
        """The name for `original`: the same at every call."""
        safe, digits = safe_name(original), 8
        while self._originals.setdefault(safe.lower(), original) != original:
            safe = _with_digest(safe_name(original), original, digits)
            digits += 8
        return safe


def _with_digest(safe: str, original: str, digits: int) -> str:
    """A shortened `safe` with a part of the digest of `original` before its extension."""
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    stem, dot, extension = safe.rpartition(".")
    if not stem or len(extension) > 16:
        stem, dot, extension = safe, "", ""
    end = f"-{digest}{dot}{extension}"
    return stem[: MAX_LENGTH - len(end)] + end
