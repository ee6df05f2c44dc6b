"""Random SIGKILLs of server and workers while jobs run, and a look at what became of the jobs.

    python tests/chaos.py --jobs 10 --kills 50 --seed 1

The tiny model, everything else real: server, store, workers, and a client that follows through the
SDK. Every job must succeed, with each of its events told once and in order, and with the very
bytes of a run that nobody disturbed.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from openai import APIConnectionError, DefaultHttpx2Client, InternalServerError, OpenAI
from tiny_model import make_tiny_base

from emojitune.jobs import pipeline
from emojitune.settings import Settings
from emojitune.store.stores import open_stores

KEY = "sk-chaos"
LABELS = ("(one)", "(two)", "(three)")  # of no vocabulary: a step is an example of the file
EXAMPLES, EPOCHS = 12, 20
STEPS = EXAMPLES * EPOCHS
PAUSES = (0.1, 4.0)  # seconds, before a kill
PATIENCE = 15.0  # seconds, for a worker to kill
T = TypeVar("T")


@dataclass
class Followed:
    """A job, and its events as a client saw them first."""

    id: str
    seed: int
    seen: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    steps_at_kill: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class JobOutcome:
    """What became of one job."""

    id: str
    status: str
    workers_killed: int
    steps: int
    faults: tuple[str, ...]


class Chaos:
    """One server that is started again whenever it dies, and the jobs that were given to it."""

    def __init__(
        self, folder: Path, seed: int, *, layers: int = 2, epochs: int = EPOCHS, often: float = 0.3
    ) -> None:
        """`often` are the seconds between checkpoints; the end of each epoch has one, too."""
        self.random = random.Random(seed)
        self.epochs = epochs
        self.settings = Settings(
            home=folder / "home",
            base_model=str(make_tiny_base(folder / "base", layers=layers)),
            device="cpu",
            dtype="float32",
            threads=1,
            checkpoint_seconds=often,
            max_running_jobs=2,
        )
        self.folder = folder
        self.kills: Counter[str] = Counter()
        self.jobs: list[Followed] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.client = OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1",
            api_key=KEY,
            max_retries=2,
            http_client=DefaultHttpx2Client(trust_env=False, timeout=10),
        )
        self.stores = open_stores(self.settings, "default")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Keep a server up, however often it dies."""
        done = threading.Event()
        self.server = self.start()

        def keep_up() -> None:
            while not done.wait(0.05):
                if self.server.poll() is not None:
                    self.server = self.start()

        keeper = threading.Thread(target=keep_up)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            self.server.terminate()
            self.server.wait(20)
            self.client.close()

    def start(self) -> "subprocess.Popen[bytes]":
        """A server's process."""
        given = {
            f"EMOJITUNE_{name.upper()}": str(getattr(self.settings, name))
            for name in self.settings.model_fields_set
        }
        command = [sys.executable, "-m", "emojitune.cli.main", "serve"]
        command += ["--port", str(self.port), "--api-key", KEY]
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                command, env={**os.environ, **given}, stdout=log, stderr=log, start_new_session=True
            )

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while the server is down."""
        while True:
            try:
                return ask()
            except (APIConnectionError, InternalServerError):
                time.sleep(0.1)

    def create(self, path: Path, seed: int) -> None:
        """Give the server a job. A key of its own: however often it is asked, it is made once."""
        file = self.patiently(lambda: self.client.files.create(file=path, purpose="fine-tune"))
        job = self.patiently(
            lambda: self.client.fine_tuning.jobs.create(
                training_file=file.id,
                model="gpt-3.5-turbo",
                seed=seed,
                hyperparameters={"n_epochs": self.epochs, "batch_size": 1},
                extra_headers={"Idempotency-Key": f"job-{seed}"},
            )
        )
        self.jobs.append(Followed(job.id, seed))

    def follow(self, job: Followed) -> str:
        """The job's status; what was seen of its story before must still be its beginning."""
        status = self.patiently(lambda: self.client.fine_tuning.jobs.retrieve(job.id)).status
        events = self.patiently(
            lambda: list(self.client.fine_tuning.jobs.list_events(job.id, limit=100))
        )
        ids = [event.id for event in reversed(events)]
        assert ids[: len(job.seen)] == job.seen, f"{job.id}: what was told has changed"
        job.seen = ids
        return status

    def kill_somebody(self) -> None:
        """A worker, if there is one soon, or the server."""
        if self.random.random() < 0.7 and (prey := self._await_prey()):
            job, pid = prey
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                job.steps_at_kill.append(self.steps(job))
                phase = "training" if job.steps_at_kill[-1] else "starting"
                self.kills[f"worker, {phase}"] += 1
                job.kills[phase] += 1
        else:
            self.server.kill()
            self.kills["server"] += 1

    def _await_prey(self) -> tuple[Followed, int] | None:
        """A worker, at a random moment of its life. Of a job at most two without a step in between:
        it is given up after the third, as is promised."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            workers = [found for job in self.jobs if (found := self._worker(job))]
            if workers:
                job, pid = self.random.choice(workers)
                time.sleep(self.random.uniform(*PAUSES))
                steps = self.steps(job)
                if self._worker(job) == (job, pid) and job.steps_at_kill[-2:] != [steps, steps]:
                    return job, pid
            time.sleep(0.1)
        return None

    def _worker(self, job: Followed) -> tuple[Followed, int] | None:
        """The process that works on a job now."""
        try:
            pid = int((self.settings.runs / job.id / "worker.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return (job, pid) if job.id.encode() in command else None

    def steps(self, job: Followed) -> int:
        """How many steps a job has told."""
        return sum(event.type == "metrics" for event in self._events(job))

    def _events(self, job: Followed) -> list[object]:
        return list(reversed(self.stores.jobs.events(job.id, limit=10_000).items))

    def outcome(self, job: Followed, reference: Path) -> JobOutcome:
        """What became of a job, beside the adapter of one that nobody disturbed."""
        found = self.stores.jobs.get(job.id)
        events = self._events(job)
        told = [event.data["step"] for event in events if event.type == "metrics"]
        faults = []
        if found.status != "succeeded":
            faults.append(f"{found.status}: {found.error}")
        if told != list(range(1, STEPS + 1)):
            faults.append("steps are missing, repeated or out of order")
        for message in ("Created", "Files validated", "The job has successfully"):
            if sum(event.message.startswith(message) for event in events) != 1:
                faults.append(f"not told once: {message}")
        if found.fine_tuned_model:
            adapter = (
                self.settings.adapters / self.stores.models.get(found.fine_tuned_model).adapter
            )
            if _bytes(adapter) != _bytes(reference):
                faults.append("another adapter than that of an undisturbed run")
        if [file for file in found.result_files if not self.stores.files.path(file).is_file()]:
            faults.append("its result file is missing")
        kills = sum(job.kills.values())
        return JobOutcome(job.id, found.status, kills, len(told), tuple(faults))


class Undisturbed:
    """Lets a job run to its end."""

    def check(self) -> None: ...

    def stop(self) -> None: ...

    def stopping(self) -> bool:
        return False

    def fence(self, statuses: Collection[str]) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


def reference(chaos: Chaos, path: Path, seed: int) -> Path:
    """The adapter of a job of this seed that nobody disturbs."""
    settings = chaos.settings.model_copy(update={"home": chaos.folder / f"reference-{seed}"})
    stores = open_stores(settings, "default")
    file = stores.files.add([path.read_bytes()], filename="f.jsonl", purpose="fine-tune")
    asked = {"n_epochs": chaos.epochs, "batch_size": 1}
    job = stores.jobs.create(
        model="gpt-3.5-turbo-0125", training_file=file.id, hyperparameters=asked, seed=seed
    )
    pipeline.validate(job, stores)
    job = pipeline.start(stores.jobs.get(job.id), stores)
    pipeline.run(job, stores, settings, Undisturbed())
    model = stores.jobs.get(job.id).fine_tuned_model
    assert model, stores.jobs.get(job.id).error
    return settings.adapters / stores.models.get(model).adapter


def run(
    folder: Path,
    *,
    jobs: int,
    kills: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Counter[str], list[JobOutcome]]:
    """Kill so often while so many jobs run; returns who was killed, and what became of the jobs.

    Where the jobs end before the last kill, there are more of them. `say` hears how far it is.
    """
    chaos = Chaos(folder, seed)
    path = training_file(folder)
    with chaos.serving():
        for number in range(jobs):
            chaos.create(path, seed=number)
        while True:
            ended = sum(chaos.follow(job) in ("succeeded", "failed") for job in chaos.jobs)
            say(f"{chaos.kills.total()} of {kills} kills, {ended} of {len(chaos.jobs)} jobs ended")
            running = ended < len(chaos.jobs)
            if not running and chaos.kills.total() >= kills:
                break
            if not running:
                chaos.create(path, seed=len(chaos.jobs))
            elif chaos.kills.total() < kills:
                time.sleep(chaos.random.uniform(*PAUSES))
                chaos.kill_somebody()
            else:
                time.sleep(0.3)
    outcomes = []
    for job in chaos.jobs:
        say(f"{len(outcomes)} of {len(chaos.jobs)} jobs run again, undisturbed")
        outcomes.append(chaos.outcome(job, reference(chaos, path, job.seed)))
    return chaos.kills, outcomes


def training_file(folder: Path, examples: int = EXAMPLES) -> Path:
    """A file of examples for the tiny model."""
    path = folder / "train.jsonl"
    lines = []
    for number in range(examples):
        asked = {"role": "user", "content": f"What a day, number {number}"}
        reply = {"role": "assistant", "content": LABELS[number % 3]}
        lines.append(json.dumps({"messages": [asked, reply]}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _show(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run, and print a table; the exit status says whether anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kills, outcomes = run(
            Path(folder), jobs=given.jobs, kills=given.kills, seed=given.seed, say=_show
        )
    print("\n\n| killed | times |\n|---|---|")
    for who, times in sorted(kills.items()):
        print(f"| {who} | {times} |")
    print("\n| job | status | its workers killed | steps told | faults |\n|---|---|---|---|---|")
    for number, one in enumerate(outcomes, start=1):
        faults = "; ".join(one.faults) or "none"
        print(f"| {number} | {one.status} | {one.workers_killed} | {one.steps} | {faults} |")
    print(f"\n{kills.total()} kills in {time.monotonic() - began:.0f} s, seed {given.seed}")
    sys.exit(any(one.faults for one in outcomes))


if __name__ == "__main__":
    main()
