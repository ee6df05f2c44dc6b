"""A server as people start it, and client programs in environments of their own.

Clients are installed by `pip` and `npm`, which use their caches; what the tests' own environment
has is copied from it. Versions are pinned, including dependencies: by the project's constraints.txt
first, by the one in this folder for the rest, and for node by the files in locks/, which `npm
install --package-lock-only --omit-lockfile-registry-resolved` makes from a package.json. So a new
release of a client breaks nothing until these files are changed.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    """The server's URL, and the environment variables for its clients."""

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


def copy_installed(packages: Iterable[str], folder: Path) -> None:
    """Copy packages and their dependencies into another environment, as far as they are here.

    pip looks each of them up and unpacks it, which takes most of the time of such a test. It
    installs what is still missing, or of another version than the constraints say.
    """
    waiting, seen = list(packages), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        needed = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        name = canonicalize_name(requirement.name)
        if not needed or name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        waiting += found.requires or ()
        for file in found.files or ():
            source = Path(os.path.normpath(str(found.locate_file(file))))
            _copy(source, folder)
            if source.suffix == ".py":
                _copy(Path(cache_from_source(str(source))), folder)


def _copy(source: Path, folder: Path) -> None:
    """Copy a file of this environment to the same place in another, unless it is a script, whose
    first line names the interpreter."""
    parts = [Path(sys.prefix, name) for name in ("lib", "lib64", "share")]
    if source.is_file() and any(source.is_relative_to(part) for part in parts):
        target = folder / source.relative_to(sys.prefix)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def install(command: list[str], folder: Path) -> None:
    """Install packages; skip the test only if the registry cannot be reached."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        reason = next((word for word in _NO_REGISTRY if word in done.stderr), None)
        if reason:
            pytest.skip(f"the package registry cannot be reached: {reason}")
        raise AssertionError(f"{' '.join(command)}: {done.stderr[-3000:]}")


def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """Run a program, which must succeed, and return its output."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout
