"""One process per run: a lock on the run's folder, and a way to kill the process that holds it.

The operating system releases the lock when its holder dies, however it dies: unlike a lease it
cannot outlive a process. Knows processes and folders, not jobs.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK_SECONDS = 2.0  # in which a worker whose server died exits by itself
_KILL_SECONDS = 10.0


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, as the only process that works in it.

    Raises:
        filelock.Timeout: Another process holds it.
    """
    with FileLock(folder / "worker.lock").acquire(timeout=_LOCK_SECONDS):
        (folder / "worker.pid").write_text(str(os.getpid()), encoding="utf-8")
        yield


def kill_holder(folder: Path) -> bool:
    """Kill the process that holds the lock of `folder`, if there is one; it may be unresponsive.

    Returns:
        Whether one had to be killed.
    """
    if not (folder / "worker.lock").exists():
        return False
    lock = FileLock(folder / "worker.lock")
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout:
        with suppress(ProcessLookupError):
            os.kill(int((folder / "worker.pid").read_text(encoding="utf-8")), signal.SIGKILL)
        lock.acquire(timeout=_KILL_SECONDS)
        lock.release()
        return True
    lock.release()
    return False
