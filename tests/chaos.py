"""Random SIGKILLs of server and workers while jobs run, and a check of the outcome of the jobs.

    python tests/chaos.py --jobs 10 --kills 50 --seed 1

The tiny model, everything else real: server, store, workers, and a client that follows through the
SDK. Every job must succeed, with each of its events once and in order, and with an adapter that is
bit-identical to that of an undisturbed run.
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
# Unknown labels get no added examples: each step is an example of the file.
LABELS = ("(one)", "(two)", "(three)")
EXAMPLES, EPOCHS = 12, 20
STEPS = EXAMPLES * EPOCHS
PAUSES = (0.1, 4.0)  # seconds, before a kill
WORKER_TIMEOUT = 15.0  # seconds, for a worker to kill
T = TypeVar("T")


@dataclass
class FollowedJob:
    """A job, and the ids of its events as a client has seen them."""

    id: str
    seed: int
    seen: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    steps_at_kill: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of one job."""

    id: str
    status: str
    workers_killed: int
    steps: int
    failures: tuple[str, ...]


class Chaos:
    """A server that is restarted whenever it dies, and its jobs."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        layers: int = 2,
        epochs: int = EPOCHS,
        checkpoint_seconds: float = 0.3,
    ) -> None:
        """Save a checkpoint every `checkpoint_seconds`, and at the end of each epoch."""
        self.random = random.Random(seed)
        self.epochs = epochs
        self.settings = Settings(
            home=folder / "home",
            base_model=str(make_tiny_base(folder / "base", layers=layers)),
            device="cpu",
            dtype="float32",
            threads=1,
            checkpoint_seconds=checkpoint_seconds,
            max_running_jobs=2,
        )
        self.folder = folder
        self.kills: Counter[str] = Counter()
        self.jobs: list[FollowedJob] = []
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
        """Keep a server running, restarting it whenever it dies."""
        done = threading.Event()
        self.server = self.start()

        def restart() -> None:
            while not done.wait(0.05):
                if self.server.poll() is not None:
                    self.server = self.start()

        restarter = threading.Thread(target=restart)
        restarter.start()
        try:
            yield
        finally:
            done.set()
            restarter.join()
            self.server.terminate()
            self.server.wait(20)
            self.client.close()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start a server process."""
        variables = {
            f"EMOJITUNE_{name.upper()}": str(getattr(self.settings, name))
            for name in self.settings.model_fields_set
        }
        command = [sys.executable, "-m", "emojitune.cli.main", "serve"]
        command += ["--port", str(self.port), "--api-key", KEY]
        with (self.folder / "server.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def retrying(self, request: Callable[[], T]) -> T:
        """Repeat a request while the server is down."""
        while True:
            try:
                return request()
            except (APIConnectionError, InternalServerError):
                time.sleep(0.1)

    def create(self, path: Path, seed: int) -> None:
        """Create a job with an idempotency key, so that retries create it once."""
        file = self.retrying(lambda: self.client.files.create(file=path, purpose="fine-tune"))
        job = self.retrying(
            lambda: self.client.fine_tuning.jobs.create(
                training_file=file.id,
                model="gpt-3.5-turbo",
                seed=seed,
                hyperparameters={"n_epochs": self.epochs, "batch_size": 1},
                extra_headers={"Idempotency-Key": f"job-{seed}"},
            )
        )
        self.jobs.append(FollowedJob(job.id, seed))

    def follow(self, job: FollowedJob) -> str:
        """The job's status; the events seen before must still be its first ones."""
        status = self.retrying(lambda: self.client.fine_tuning.jobs.retrieve(job.id)).status
        events = self.retrying(
            lambda: list(self.client.fine_tuning.jobs.list_events(job.id, limit=100))
        )
        ids = [event.id for event in reversed(events)]
        assert ids[: len(job.seen)] == job.seen, f"{job.id}: events seen before have changed"
        job.seen = ids
        return status

    def kill_at_random(self) -> None:
        """Kill a worker, if one runs soon, or the server."""
        if self.random.random() < 0.7 and (victim := self._await_victim()):
            job, pid = victim
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                job.steps_at_kill.append(self.steps(job))
                phase = "training" if job.steps_at_kill[-1] else "starting"
                self.kills[f"worker, {phase}"] += 1
                job.kills[phase] += 1
        else:
            self.server.kill()
            self.kills["server"] += 1

    def _await_victim(self) -> tuple[FollowedJob, int] | None:
        """A worker at a random moment; for each job at most two without a step in between, because
        a job fails after the third, by design."""
        deadline = time.monotonic() + WORKER_TIMEOUT
        while time.monotonic() < deadline:
            workers = [worker for job in self.jobs if (worker := self._worker(job))]
            if workers:
                job, pid = self.random.choice(workers)
                time.sleep(self.random.uniform(*PAUSES))
                steps = self.steps(job)
                if self._worker(job) == (job, pid) and job.steps_at_kill[-2:] != [steps, steps]:
                    return job, pid
            time.sleep(0.1)
        return None

    def _worker(self, job: FollowedJob) -> tuple[FollowedJob, int] | None:
        """The process that runs a job now."""
        try:
            pid = int((self.settings.runs / job.id / "worker.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return (job, pid) if job.id.encode() in command else None

    def steps(self, job: FollowedJob) -> int:
        """The number of steps that a job has logged."""
        return sum(event.type == "metrics" for event in self._events(job))

    def _events(self, job: FollowedJob) -> list[object]:
        return list(reversed(self.stores.jobs.events(job.id, limit=10_000).items))

    def outcome(self, job: FollowedJob, reference: Path) -> JobOutcome:
        """The outcome of a job, compared with the adapter of an undisturbed run."""
        stored = self.stores.jobs.get(job.id)
        events = self._events(job)
        steps_logged = [event.data["step"] for event in events if event.type == "metrics"]
        failures = []
        if stored.status != "succeeded":
            failures.append(f"{stored.status}: {stored.error}")
        if steps_logged != list(range(1, STEPS + 1)):
            failures.append("steps are missing, repeated or out of order")
        for message in ("Created", "Files validated", "The job has successfully"):
            if sum(event.message.startswith(message) for event in events) != 1:
                failures.append(f"not logged once: {message}")
        if stored.fine_tuned_model:
            adapter = (
                self.settings.adapters / self.stores.models.get(stored.fine_tuned_model).adapter
            )
            if _bytes(adapter) != _bytes(reference):
                failures.append("the adapter differs from that of an undisturbed run")
        if [file for file in stored.result_files if not self.stores.files.path(file).is_file()]:
            failures.append("its result file is missing")
        kills = sum(job.kills.values())
        return JobOutcome(job.id, stored.status, kills, len(steps_logged), tuple(failures))


class Undisturbed:
    """A control that lets a job run to its end."""

    def check(self) -> None: ...

    def stop(self) -> None: ...

    def stopping(self) -> bool:
        return False

    def fence(self, statuses: Collection[str]) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()


def reference(chaos: Chaos, path: Path, seed: int) -> Path:
    """The adapter of an undisturbed job with this seed."""
    settings = chaos.settings.model_copy(update={"home": chaos.folder / f"reference-{seed}"})
    stores = open_stores(settings, "default")
    file = stores.files.add([path.read_bytes()], filename="f.jsonl", purpose="fine-tune")
    hyperparameters = {"n_epochs": chaos.epochs, "batch_size": 1}
    job = stores.jobs.create(
        model="gpt-3.5-turbo-0125",
        training_file=file.id,
        hyperparameters=hyperparameters,
        seed=seed,
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
    report: Callable[[str], None] = lambda _: None,
) -> tuple[Counter[str], list[JobOutcome]]:
    """Run jobs while killing processes; return the kills by kind, and the outcomes.

    More jobs are created if they end before the last kill. `report` gets the progress.
    """
    chaos = Chaos(folder, seed)
    path = training_file(folder)
    with chaos.serving():
        for number in range(jobs):
            chaos.create(path, seed=number)
        while True:
            ended = sum(chaos.follow(job) in ("succeeded", "failed") for job in chaos.jobs)
            killed = chaos.kills.total()
            report(f"{killed} of {kills} kills, {ended} of {len(chaos.jobs)} jobs ended")
            running = ended < len(chaos.jobs)
            if not running and killed >= kills:
                break
            if not running:
                chaos.create(path, seed=len(chaos.jobs))
            elif killed < kills:
                time.sleep(chaos.random.uniform(*PAUSES))
                chaos.kill_at_random()
            else:
                time.sleep(0.3)
    outcomes = []
    for job in chaos.jobs:
        report(f"{len(outcomes)} of {len(chaos.jobs)} jobs run again, undisturbed")
        outcomes.append(chaos.outcome(job, reference(chaos, path, job.seed)))
    return chaos.kills, outcomes


def training_file(folder: Path, examples: int = EXAMPLES) -> Path:
    """A file of examples for the tiny model."""
    path = folder / "train.jsonl"
    lines = []
    for number in range(examples):
        prompt = {"role": "user", "content": f"What a day, number {number}"}
        reply = {"role": "assistant", "content": LABELS[number % 3]}
        lines.append(json.dumps({"messages": [prompt, reply]}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _show(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run and print a table; the exit status is 1 if a job failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kills, outcomes = run(
            Path(folder), jobs=options.jobs, kills=options.kills, seed=options.seed, report=_show
        )
    print("\n\n| killed | times |\n|---|---|")
    for who, times in sorted(kills.items()):
        print(f"| {who} | {times} |")
    print("\n| job | status | its workers killed | steps | failures |\n|---|---|---|---|---|")
    for number, one in enumerate(outcomes, start=1):
        failures = "; ".join(one.failures) or "none"
        print(f"| {number} | {one.status} | {one.workers_killed} | {one.steps} | {failures} |")
    print(f"\n{kills.total()} kills in {time.monotonic() - started:.0f} s, seed {options.seed}")
    sys.exit(any(one.failures for one in outcomes))


if __name__ == "__main__":
    main()
