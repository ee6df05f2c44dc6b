"""A job and chats on one server: `python -m benchmarks.together SECONDS CHATS`.

Starts a real server, tunes a model on it, and measures through the official client: the examples
a second of another job alone, and of that job beside CHATS concurrent chats; and the chats' replies
a second, beside the job and alone.
"""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from openai import OpenAI

from benchmarks.processes import say
from emojitune.dataset.validation import load_examples
from emojitune.settings import Settings
from emojitune.workflow.progress import TERMINAL
from emojitune.workflow.provider import connect

TRAIN, VALID = Path("data/emoji_ft_train.jsonl"), Path("data/emoji_ft_valid.jsonl")
BASE = "gpt-3.5-turbo"
BATCH = 16
WARM_UP = 3  # steps
MANY = 50  # epochs: the job is cancelled before its end
LOOK_EVERY = 0.2  # seconds


class Job:
    """A training job on the server, and its progress."""

    def __init__(self, client: OpenAI, file: str, epochs: int) -> None:
        self._jobs = client.fine_tuning.jobs
        self.id = self._jobs.create(
            training_file=file,
            model=BASE,
            hyperparameters={"n_epochs": epochs, "batch_size": BATCH},
        ).id

    def step(self) -> int:
        """The last step among the events."""
        events = self._jobs.list_events(self.id, limit=5).data
        steps = [event.data["step"] for event in events if event.type == "metrics"]
        return max(steps, default=0)

    def next_step(self, after: int) -> tuple[int, float]:
        """The first step after `after` among the events, and when it was seen."""
        while (step := self.step()) <= after:
            self._refuse_end()
            time.sleep(LOOK_EVERY)
        return step, time.monotonic()

    def rate(self, seconds: float) -> float:
        """Examples a second, from one step's end to the first after `seconds`."""
        first, began = self.next_step(max(WARM_UP, self.step()))
        time.sleep(seconds)
        last, ended = self.next_step(self.step())
        return BATCH * (last - first) / (ended - began)

    def end(self, *, cancel: bool) -> str | None:
        """Wait for the end, or cancel the job first; the model's name, if there is one."""
        if cancel:
            self._jobs.cancel(self.id)
        while (job := self._jobs.retrieve(self.id)).status not in TERMINAL:
            time.sleep(LOOK_EVERY)
        return job.fine_tuned_model

    def _refuse_end(self) -> None:
        job = self._jobs.retrieve(self.id)
        if job.status in TERMINAL:
            raise RuntimeError(f"The job ended while it was measured: {job.status}, {job.error}")


class Chats:
    """`at_a_time` concurrent requests, one after the other, each with another prompt."""

    def __init__(self, client: OpenAI, model: str, at_a_time: int) -> None:
        self._client, self._model, self._at_a_time = client, model, at_a_time
        self._prompts = [
            [message.to_dict() for message in example.prompt] for example in load_examples(VALID)
        ]
        self._numbers = count()

    def ask(self) -> None:
        prompt = self._prompts[next(self._numbers) % len(self._prompts)]
        self._client.chat.completions.create(
            model=self._model,
            messages=prompt,  # type: ignore[arg-type]
            temperature=0,
        )

    @contextmanager
    def running(self) -> Iterator[list[float]]:
        """Run a block beside the chats; yields a list that receives the time of each reply."""
        replied: list[float] = []
        over = threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                self.ask()
                replied.append(time.monotonic())

        with ThreadPoolExecutor(self._at_a_time) as threads:
            asking = [threads.submit(keep_asking) for _ in range(self._at_a_time)]
            try:
                yield replied
            finally:
                over.set()
        for one in asking:
            one.result()


def replies_a_second(replied: list[float]) -> float:
    return (len(replied) - 1) / (replied[-1] - replied[0])


def measure(client: OpenAI, seconds: float, at_a_time: int) -> dict[str, dict[str, float]]:
    """The rates alone and together: the job alone, with the chats, the chats alone."""
    with TRAIN.open("rb") as lines:
        file = client.files.create(file=lines, purpose="fine-tune").id
    model = Job(client, file, epochs=1).end(cancel=False)
    assert model is not None
    chats = Chats(client, model, at_a_time)
    chats.ask()  # loads the model
    job = Job(client, file, MANY)
    job_alone = job.rate(seconds)
    with chats.running() as replied:
        job_together = job.rate(seconds)
        chats_together = replies_a_second(list(replied))
    job.end(cancel=True)
    with chats.running() as replied:
        time.sleep(seconds)
        chats_alone = replies_a_second(list(replied))
    return {
        "job, examples/s": {"alone": job_alone, "together": job_together},
        "chats, replies/s": {"alone": chats_alone, "together": chats_together},
    }


def main(seconds: str, at_a_time: str) -> None:
    with TemporaryDirectory() as home, connect("local", Settings(home=Path(home))) as connection:
        say(measure(connection.client, float(seconds), int(at_a_time)))


if __name__ == "__main__":
    main(*sys.argv[1:])
