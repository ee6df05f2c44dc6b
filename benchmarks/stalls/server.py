"""A real server process with keys of two projects, and its usage as seen from outside."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.stalls.verdict import MAX_MEMORY_KEPT, Usage
from emojitune.store.database import make_home, open_database
from emojitune.store.keys import KeyStore

MAX_MEMORY = 12 * 2**30  # bytes: an attack must not take the machine down
_START_SECONDS = 90.0
_QUIET_WINDOW = 0.5  # seconds
_QUIET_SHARE = 0.2  # of a core
_LONGEST_QUIET = 60.0
_MEMORY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers."""

    url: str  # without /v1
    offender: str  # a key
    honest: str  # a key of another project
    process: psutil.Process

    def alive(self) -> bool:
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def usage(self) -> Usage:
        """Its memory and descriptors; all zero when it ended."""
        memory = 0
        for process in self._processes():
            with suppress(psutil.Error):  # it ended meanwhile
                memory += process.memory_info().rss
        try:
            return Usage(memory / 2**20, self.process.num_fds())
        except psutil.Error:
            return Usage(0.0, 0)

    async def until_quiet(self) -> float | None:
        """Wait until it computes no more; the seconds until then, None after a minute."""
        began = time.monotonic()
        while (start := time.monotonic()) - began < _LONGEST_QUIET:
            used = self._processor_seconds()
            await asyncio.sleep(_QUIET_WINDOW)
            if self._processor_seconds() - used < _QUIET_SHARE * _QUIET_WINDOW:
                return start - began
        return None

    async def until_memory_is_back(self, before: Usage) -> Usage:
        """Wait until memory is near that of `before`, a minute at most; the usage then."""
        deadline = time.monotonic() + _MEMORY_SECONDS
        while time.monotonic() < deadline:
            if (usage := self.usage()).mb - before.mb <= MAX_MEMORY_KEPT:
                return usage
            await asyncio.sleep(1.0)
        return self.usage()

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.Error:
            return []

    def _processor_seconds(self) -> float:
        total = 0.0
        for process in self._processes():
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total


@contextmanager
def serving(
    home: Path, environment: Mapping[str, str], descriptors: int | None = None
) -> Iterator[Server]:
    """A server on a new home, which ends with the block.

    Args:
        environment: Variables besides ours.
        descriptors: The number that it may have open.
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
        if descriptors is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    offender, honest = _make_keys(home)
    command = [sys.executable, "-m", "emojitune.cli.main", "serve", "--port", "0"]
    log = home / "server.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [*command, "--home", str(home)],
            stdout=out,
            stderr=out,
            env={**os.environ, **environment},
            preexec_fn=limit,
        ) as process,
    ):
        try:
            url = _url(home / "server.json", process)
            yield Server(url, offender, honest, psutil.Process(process.pid))
        finally:
            process.kill()


def _make_keys(home: Path) -> tuple[str, str]:
    make_home(home)
    database = open_database(home)
    try:
        store = KeyStore(database)
        return store.create("offender")[1], store.create("honest")[1]
    finally:
        database.close()


def _url(info: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if info.is_file():
            url: str = json.loads(info.read_text(encoding="utf-8"))["url"]
            return url.removesuffix("/v1")
        time.sleep(0.1)
    log = info.with_name("server.log").read_text(encoding="utf-8", errors="replace")
    raise SystemExit(f"The server did not start:\n{log[-2000:]}")
