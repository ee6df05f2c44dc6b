"""One process a run: a lock on the run's folder, and the end of whoever still holds it.

The operating system gives the lock back when its holder dies, however it dies: unlike a lease it
cannot outlive a process. Knows processes and folders, not jobs.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PATIENCE = 2.0  # seconds in which a worker whose server died ends by itself
_DYING = 10.0


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Be the one process that works in `folder`.

    Raises:
        filelock.Timeout: Another one does.
    """
    with FileLock(folder / "worker.lock").acquire(timeout=_PATIENCE):
        (folder / "worker.pid").write_text(str(os.getpid()), encoding="utf-8")
        yield


def end_holder(folder: Path) -> bool:
    """End the process that works in `folder`, if there is one; it may be stopped, and hear nothing.

    Returns:
        Whether one had to be ended.
    """
    if not (folder / "worker.lock").exists():
        return False
    lock = FileLock(folder / "worker.lock")
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        with suppress(ProcessLookupError):
            os.kill(int((folder / "worker.pid").read_text(encoding="utf-8")), signal.SIGKILL)
        lock.acquire(timeout=_DYING)
        lock.release()
        return True
    lock.release()
    return False
