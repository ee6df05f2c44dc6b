"""Contenders as processes of their own, one after the other, round by round.

A process prints its measurements as its last line of output, in JSON. Rounds are interleaved, so
that a slow minute of the machine affects all contenders.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rich.console import Console

Measure = Callable[[], Any]


class ContenderError(Exception):
    """A contender ended with an error; the message is the end of what it wrote."""


class OutOfMemory(ContenderError):
    """A contender needed more memory than it was allowed."""


def measured(
    module: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    memory: int | None = None,
) -> Any:
    """The measurements that `python -m module arguments` prints.

    Args:
        environment: Variables besides ours.
        memory: Bytes that it may hold; more would take the machine down with it.
    """
    limit = partial(resource.setrlimit, resource.RLIMIT_DATA, (memory, memory)) if memory else None
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", module, *map(str, arguments)],
        env={**os.environ, **(environment or {}), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
        preexec_fn=limit,
    )
    if done.returncode:
        raise _error(done.returncode, done.stderr.decode())
    return json.loads(done.stdout.splitlines()[-1])


def _error(status: int, written: str) -> ContenderError:
    message = written[-2000:] or f"It ended with status {status}."
    ended = status == -signal.SIGKILL  # by the system, when nothing is left
    short = ended or any(sign in written for sign in ("MemoryError", "can't allocate memory"))
    return OutOfMemory(message) if short else ContenderError(message)


def say(found: Any) -> None:
    """The contender's side of `measured`; libraries that print cannot get into the line."""
    os.write(sys.stdout.fileno(), (json.dumps(found) + "\n").encode())


def interleaved(
    contenders: Mapping[str, Measure], rounds: int, console: Console
) -> dict[str, list[Any]]:
    """The measurements of each contender in each round."""
    found: dict[str, list[Any]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, measure in contenders.items():
            console.print(f"round {number + 1}/{rounds}: {name}", highlight=False)
            try:
                found[name].append(measure())
            except ContenderError as error:
                console.print(str(error), markup=False, highlight=False)
                raise SystemExit(f"{name} failed") from error
    return found
