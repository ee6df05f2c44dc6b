"""All at once, for a while: `python -m benchmarks.load [--seconds 120] [--kill | --long-prompts]`.

64 chats, 16 uploads, followers of a training job, and a client of light endpoints, on one server,
through the official client. It must hold that no request fails, no event of the job is lost or
sent twice, light endpoints answer at once, and the server's memory stays flat. With --kill the
job's worker is killed in the middle of it. With --long-prompts there is a second run, on a new
server, in which another project sends long prompts throughout: the p99 of the chats may be at most
twice that without them.
"""

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from openai import OpenAI
from rich.console import Console
from rich.table import Table

from benchmarks import machine, report
from benchmarks.reply_prompts import digits
from benchmarks.together import BASE, BATCH, MANY, TRAIN, VALID, Job
from emojitune.dataset.validation import load_examples
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.keys import KeyStore
from emojitune.workflow.provider import connect

CHATS, UPLOADS, FOLLOWERS, LOOKERS = 64, 16, 8, 2
PAUSE = 0.5  # seconds, between requests of all but the chats
UPLOADED = 200_000  # bytes of a file
LONG_PROMPT = 7900  # tokens
MAX_CHAT_RATIO = 2.0  # of the chats' p99 beside long prompts, over that without


@dataclass
class Requests:
    """The times of requests of one kind, in seconds, and the errors of those that failed."""

    times: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Counts, and times in milliseconds."""
        cuts = quantiles(self.times, n=100) if len(self.times) > 1 else [0.0] * 99
        return {
            "requests": len(self.times),
            "failed": len(self.errors),
            "p50": 1000 * median(self.times or [0.0]),
            "p99": 1000 * cuts[98],
            "worst": 1000 * max(self.times, default=0.0),
        }


class Load:
    """Threads that send requests until it is over."""

    def __init__(self) -> None:
        self.kinds: dict[str, Requests] = {}
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def keep(self, kind: str, ask: Callable[[], object], threads: int, pause: float) -> None:
        """Have `threads` threads send requests again and again."""
        requests = self.kinds.setdefault(kind, Requests())

        def loop() -> None:
            while not self._over.is_set():
                began = time.perf_counter()
                try:
                    ask()
                    requests.times.append(time.perf_counter() - began)
                except Exception as error:
                    requests.errors.append(f"{type(error).__name__}: {error}")
                self._over.wait(pause)

        self._threads += [threading.Thread(target=loop) for _ in range(threads)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a block with all of them at work."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join()


def chatting(client: OpenAI, model: str) -> Callable[[], object]:
    """A function that requests a reply, each time to another prompt."""
    prompts = [
        [message.to_dict() for message in example.prompt] for example in load_examples(VALID)
    ]
    numbers = count()

    def ask() -> None:
        client.chat.completions.create(
            model=model,
            messages=prompts[next(numbers) % len(prompts)],  # type: ignore[arg-type]
        )

    return ask


def prompting(client: OpenAI) -> Callable[[], object]:
    """A function that requests the answer to a long prompt, each time to another."""
    numbers = random.Random(0)

    def ask() -> None:
        client.chat.completions.create(
            model=BASE,
            messages=[{"role": "user", "content": digits(LONG_PROMPT, numbers)}],
            max_tokens=16,
        )

    return ask


def another_project(client: OpenAI, home: Path) -> OpenAI:
    """A client of the same server with a key of another project."""
    database = open_database(home)
    try:
        _, secret = KeyStore(database).create("another")
    finally:
        database.close()
    return client.with_options(api_key=secret)


def uploading(client: OpenAI) -> Callable[[], object]:
    """A function that uploads a file of its own, reads it back, and deletes it."""
    numbers = count()

    def ask() -> None:
        line = json.dumps({"number": next(numbers)}).encode() + b"\n"
        content = line * (UPLOADED // len(line))
        file = client.files.create(file=("load.jsonl", content), purpose="user_data")
        assert client.files.content(file.id).content == content, "other bytes came back"
        client.files.delete(file.id)

    return ask


def events_off(client: OpenAI, job: str) -> int:
    """The number of a job's steps that are missing among its events, or there twice."""
    events = list(client.fine_tuning.jobs.list_events(job, limit=100))
    steps = [event.data["step"] for event in events if event.type == "metrics"]  # type: ignore[index]
    return len(set(range(1, max(steps) + 1)) ^ set(steps)) + len(steps) - len(set(steps))


def measure(
    home: Path, seconds: float, console: Console, *, kill: bool = False, long_prompts: bool = False
) -> dict[str, Any]:
    """Run the load for `seconds`, and return its measurements."""
    with connect("local", Settings(home=home)) as connection:
        client = connection.client.with_options(max_retries=0)
        with TRAIN.open("rb") as lines:
            file = client.files.create(file=lines, purpose="fine-tune").id
        console.print("Tuning a model to chat with")
        model = Job(client, file, epochs=1).end(cancel=False)
        assert model is not None
        job = Job(client, file, MANY)
        load = Load()
        load.keep("chat", chatting(client, model), CHATS, 0.0)
        load.keep("upload, read back, delete", uploading(client), UPLOADS, PAUSE)
        # Followers look at both; apart, each is timed.
        jobs = client.fine_tuning.jobs
        load.keep("GET a job", partial(jobs.retrieve, job.id), FOLLOWERS, PAUSE)
        load.keep("GET its events", partial(jobs.list_events, job.id, limit=20), FOLLOWERS, PAUSE)
        load.keep("GET /v1/models", client.models.list, LOOKERS, PAUSE / 2)
        load.keep("GET /v1/files", lambda: client.files.list(limit=20), LOOKERS, PAUSE / 2)
        if long_prompts:
            load.keep("long prompt", prompting(another_project(client, home)), 1, 0.0)
        server = psutil.Process(json.loads((home / "server.json").read_text())["pid"])
        first = job.next_step(0)[0]
        memory: list[float] = []
        console.print(f"Asking for all at once, for {seconds:g} s")
        with load.running():
            began, killed = time.monotonic(), not kill
            while (passed := time.monotonic() - began) < seconds:
                memory.append(server.memory_info().rss / 2**20)
                if not killed and passed > seconds / 2:
                    pid = int((home / "runs" / job.id / "worker.pid").read_text())
                    os.kill(pid, signal.SIGKILL)
                    killed = True
                time.sleep(1.0)
            last = job.step()
        job.end(cancel=True)
        sixths = [len(memory) * n // 6 for n in range(7)]
        return {
            "requests": {name: kind.summary() for name, kind in load.kinds.items()},
            "errors": {name: kind.errors[:5] for name, kind in load.kinds.items() if kind.errors},
            "steps": last - first,
            "examples/s": BATCH * (last - first) / seconds,
            "events lost or reported twice": events_off(client, job.id),
            "server MB, median of each sixth": [
                round(median(memory[begin:end])) for begin, end in pairwise(sixths)
            ],
        }


def table(found: dict[str, Any]) -> Table:
    """Requests by kind."""
    shown = Table("requests", "count", "failed", "p50 ms", "p99 ms", "worst ms")
    for name, kind in found["requests"].items():
        times = (f"{kind[key]:.0f}" for key in ("p50", "p99", "worst"))
        shown.add_row(name, str(kind["requests"]), str(kind["failed"]), *times)
    return shown


def show(found: dict[str, Any], console: Console) -> None:
    """Print the measurements of a run."""
    console.print(table(found))
    for name, value in found.items():
        if name != "requests":
            console.print(f"{name}: {value}", highlight=False)


def has_failed(found: dict[str, Any]) -> bool:
    """Whether a request failed, or an event was lost or reported twice."""
    failed = any(kind["failed"] for kind in found["requests"].values())
    return failed or bool(found["events lost or reported twice"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    also = parser.add_mutually_exclusive_group()
    also.add_argument("--kill", action="store_true", help="the worker, half-way")
    also.add_argument("--long-prompts", action="store_true", help="a second run beside them")
    parser.add_argument("--json", type=Path, default=report.RESULTS / "load.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    with TemporaryDirectory() as home:
        found = measure(Path(home), given.seconds, console, kill=given.kill)
    show(found, console)
    failed, results = has_failed(found), {"machine": before, "seconds": given.seconds, **found}
    if given.long_prompts:
        with TemporaryDirectory() as home:
            beside = measure(Path(home), given.seconds, console, long_prompts=True)
        show(beside, console)
        ratio = beside["requests"]["chat"]["p99"] / found["requests"]["chat"]["p99"]
        console.print(f"p99 of chats beside long prompts: {ratio:.2f} × that without")
        failed = failed or has_failed(beside) or ratio > MAX_CHAT_RATIO
        results |= {"beside long prompts": beside, "ratio": ratio}
    report.write(given.json, console, results)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
