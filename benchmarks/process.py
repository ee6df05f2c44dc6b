"""What is measured runs as a process of its own: started, heard, and asked how large it grew."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil


def told(name: str, command: list[str], environment: Mapping[str, str]) -> Any:
    """The last line of `python -m command...`, which is JSON; ends all if that failed.

    Args:
        name: What a person calls it.
        environment: Added to this process's own.
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", *command],
        env={**os.environ, **environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        print(done.stderr.decode()[-2000:], file=sys.stderr)
        raise SystemExit(f"{name} failed")
    return json.loads(done.stdout.splitlines()[-1])


def tell(value: Any) -> None:
    """Write what `told` hears, past whatever a library has made of `print`."""
    os.write(sys.stdout.fileno(), (json.dumps(value) + "\n").encode())


def peak_mb(pid: int) -> float | None:
    """The most memory that a running process has held, in MiB; None where the system hides it.

    Not `getrusage`: a process begins there with what its parent held when it was started.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def processor_seconds(pid: int) -> float:
    """What a running process has had of all processors so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
