"""A server that really trains, with a tiny base model, and jobs on it."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from servers import KEY, serving

from emojitune.server.app import create_app
from emojitune.settings import Settings
from emojitune.store.stores import open_stores

LABELS = ("(party)", "(devil)", "(ourlogo)")


SYSTEM = {"role": "system", "content": "You're a chatbot that only responds with emojis!"}


def training_file(folder: Path, examples: int = 12) -> Path:
    path = folder / "train.jsonl"
    rows = [
        {
            "messages": [
                SYSTEM,
                {"role": "user", "content": f"What a day, number {number}"},
                {"role": "assistant", "content": LABELS[number % 3]},
            ]
        }
        for number in range(examples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@contextmanager
def training_server(home: Path, base: Path) -> Iterator[OpenAI]:
    settings = Settings(
        home=home, base_model=str(base), api_key=KEY, device="cpu", dtype="float32", threads=1
    )
    with (
        serving(create_app(settings)) as url,
        OpenAI(
            base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        yield client


def wait(
    client: OpenAI, job_id: str, until: Callable[[FineTuningJob], bool] | None = None
) -> FineTuningJob:
    """Poll a job until it ends, or until a condition holds."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in ("succeeded", "failed", "cancelled") or (until and until(job)):
            return job
        time.sleep(0.1)
    raise AssertionError(f"the job did not end: {messages(client, job_id)[-3:]}")


def fine_tune(client: OpenAI, path: Path, replies: list[str]) -> FineTuningJob:
    """A succeeded job of two epochs in batches of 5, with one training example per reply."""
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"number {number}"},
                {"role": "assistant", "content": reply},
            ]
        }
        for number, reply in enumerate(replies)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = client.fine_tuning.jobs.create(
        model="gpt-3.5-turbo",
        training_file=client.files.create(file=path, purpose="fine-tune").id,
        hyperparameters={"n_epochs": 2, "batch_size": 5},
    )
    ended = wait(client, job.id)
    assert ended.status == "succeeded", ended.error
    return ended


def wait_for_workers(home: Path) -> None:
    """Wait until no worker has a lease on a job of this home."""
    leases = open_stores(Settings(home=home), "default").leases
    deadline = time.monotonic() + 30
    while leases.leased():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def messages(client: OpenAI, job_id: str) -> list[str]:
    """The messages of a job's events, the oldest first."""
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=100))
    return [event.message for event in reversed(events)]


def create(client: OpenAI, path: Path, **parameters: object) -> FineTuningJob:
    file = client.files.create(file=path, purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        training_file=file.id, model="gpt-3.5-turbo", suffix="emoji-v1", **parameters
    )
