"""The resources used by a running process, read from outside."""

from pathlib import Path

import psutil


def peak_mb(pid: int) -> float | None:
    """Its peak memory, in MiB; None where the system hides it.

    Not `getrusage`: a process begins there with what its parent held when it was started.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def memory_mb(pid: int) -> float:
    """Its memory now, in MiB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def reset_peak(pid: int) -> None:
    """Begin a new peak at its memory now. Only on Linux, and for processes of the same user."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def processor_seconds(pid: int) -> float:
    """Its processor time so far, over all cores."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
