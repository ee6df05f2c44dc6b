"""A server as people start it, and programs that are run and installed apart from these tests.

Clients are installed by `pip` and `npm` with the caches that these have anyway. Their versions are
pinned, with all that they need: the project's constraints.txt first, ours for the rest, and for
node the files in locks/, which `npm install --package-lock-only --omit-lockfile-registry-resolved`
makes of a package.json. A client's next release is tried by a change of these files, and breaks
nothing on its own.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

KEY = "sk-clients"
PROGRAMS = Path(__file__).with_name("programs")
LOCKS = Path(__file__).with_name("locks")
CONSTRAINTS = (
    Path(__file__).parents[2] / "constraints.txt",
    Path(__file__).with_name("constraints.txt"),
)
_NO_REGISTRY = (
    "ENOTFOUND",
    "ECONNREFUSED",
    "ETIMEDOUT",
    "EAI_AGAIN",
    "NewConnectionError",
    "ConnectTimeout",
    "NameResolutionError",
    "Failed to establish a new connection",
)


class Server(NamedTuple):
    """Where it is, and what a client's environment needs to find it."""

    url: str
    environment: dict[str, str]


def wait_for(process: subprocess.Popen[bytes], home: Path, log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if (home / "server.json").exists():
            url: str = json.loads((home / "server.json").read_text())["url"]
            if httpx2.get(url.removesuffix("/v1") + "/healthz").status_code == 200:
                return url
        time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def install(command: list[str], folder: Path) -> None:
    """Skips the test when the registry cannot be reached, and only then."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = next((word for word in _NO_REGISTRY if word in done.stderr), None)
        if reason:
            pytest.skip(f"the package registry cannot be reached: {reason}")
        raise AssertionError(f"{' '.join(command)}: {done.stderr[-3000:]}")


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """What a program prints; it may not fail."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout
