"""The memory that this process may still take, by what the system and its container report."""

import os
from contextlib import suppress
from pathlib import Path

from emojitune.errors import ModelError

_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Bytes that this process may still allocate; None where the system does not report them."""
    amounts = [amount for amount in (_free_memory(), _free_in_cgroup()) if amount is not None]
    return min(amounts, default=None)


def check(needed: int, what: str) -> None:
    """Check that at least `needed` bytes are available.

    Args:
        what: What takes them.

    Raises:
        ModelError: Less is available.
    """
    available = available_bytes()
    if available is not None and needed > available:
        raise ModelError(
            f"A model must fit into memory: {what} takes at least {needed / 1e9:.1f} GB, and "
            f"{available / 1e9:.1f} GB are available. Use a smaller base model, or free some "
            "memory.",
            code="out_of_memory",
            param="model",
        )


def _free_memory() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return None


def _free_in_cgroup() -> int | None:
    """Bytes that a container's limit leaves; the kernel frees pages of files first."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            allowed = int((_CGROUP / limit).read_text(encoding="ascii"))
            used = int((_CGROUP / usage).read_text(encoding="ascii"))
            return max(0, allowed - used + _file_pages(_CGROUP / limit))
    return None


def _file_pages(limit: Path) -> int:
    with suppress(OSError, ValueError):
        for line in (limit.parent / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(count)
    return 0
