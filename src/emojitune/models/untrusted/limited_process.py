"""Limits that a process sets for itself, and why one ended that exceeded them.

The system enforces them, also within a library's C or Rust code. Where it has no such limits, as
on Windows, there are none.
"""

import os
import signal
import sys
from contextlib import suppress

# No pools of threads: a limited process leaves the processor to those that answer requests.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RUST_BACKTRACE": "0",
}
_NICE = 10


def command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package as a process."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment of a limited process."""
    return {**os.environ, **ENVIRONMENT}


def limit_memory(size: int) -> None:
    """End allocation at `size` bytes of this process; files that are mapped do not count."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: float) -> None:
    """End this process in `seconds`, unless it is called again; 0 for no end."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def yield_to_others() -> None:
    """Give this process a lower priority than those that answer requests."""
    with suppress(AttributeError, OSError):
        os.nice(_NICE)


def why_ended(status: int, seconds: float, size: int) -> str:
    """Why a process with these limits ended with exit status `status`, in words."""
    if hasattr(signal, "SIGALRM") and status == -signal.SIGALRM:
        return f"it takes longer than {seconds:g} seconds"
    return f"it fails, or needs more memory than {size // 2**20} MiB (exit status {status})"
