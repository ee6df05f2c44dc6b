"""Upload, create the job, follow it, list its events, smoke-test the model.

Every function takes the SDK's client, whoever stands behind it.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import openai
from openai import OpenAI
from openai.types import FileObject
from openai.types.chat import ChatCompletionMessageParam
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from emojitune.errors import ConfigurationError, InvalidRequestError, ProviderError
from emojitune.labels import SYSTEM_PROMPT
from emojitune.workflow.progress import Progress
from emojitune.workflow.provider import provider_errors

PATIENCE_SECONDS = 120.0  # how long a lost connection may stay lost while a job is followed
SMOKE_TEST_TOKENS = 50
CHAT_TOKENS = 1024

# What may pass by itself; an error of another kind will be the same at the next poll.
_PASSING = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)


def upload(client: OpenAI, path: Path) -> FileObject:
    """Upload a training file."""
    try:
        with path.open("rb") as file, provider_errors():
            name = path.name.encode(errors="replace").decode()  # which need not be UTF-8
            return client.files.create(file=(name, file), purpose="fine-tune")
    except OSError as error:
        message = f"The file {path} cannot be read ({error.strerror}). Check the path."
        raise ConfigurationError(message) from error


def create_job(
    client: OpenAI,
    *,
    training_file: str,
    model: str,
    suffix: str | None = None,
    n_epochs: int | None = None,
    seed: int | None = None,
) -> FineTuningJob:
    """Create the job; what is None is left to the provider."""
    with provider_errors():
        return client.fine_tuning.jobs.create(
            training_file=training_file,
            model=model,
            suffix=openai.omit if suffix is None else suffix,
            seed=openai.omit if seed is None else seed,
            hyperparameters={"n_epochs": "auto" if n_epochs is None else n_epochs},
        )


def follow(
    client: OpenAI,
    job_id: str,
    *,
    interval: float = 1.0,
    patience: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """The job's progress: one value for each new event and each poll, until a terminal state.

    A lost connection is waited for up to `patience` seconds; an error that cannot pass is raised.
    """
    state = Progress(job_id, "unknown")
    pace = _Pace()
    heard: set[str] = set()
    last_contact = time.monotonic()
    while not state.finished:
        try:
            # The job first: when it is terminal, its last event is already written.
            job = client.fine_tuning.jobs.retrieve(job_id)
            fresh = _new_events(client, job_id, heard)
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            if not isinstance(error, _PASSING):
                with provider_errors():
                    raise
            if time.monotonic() - last_contact > patience:
                raise ProviderError(_lost(job_id, error), code="connection_error") from error
            yield replace(state, message="Connection lost; trying again ...")
            sleep(interval)
            continue
        last_contact = time.monotonic()
        state = replace(state, epochs=_epochs(job))
        for event in fresh:
            state = _advance(state, event, pace, job.finished_at or job.estimated_finish)
            yield state
        state = replace(state, status=job.status, message=None)
        yield state
        if not state.finished:
            sleep(interval)


def _epochs(job: FineTuningJob) -> int | None:
    planned = job.hyperparameters.n_epochs
    return planned if isinstance(planned, int) else None  # "auto" until the job is planned


def _lost(job_id: str, error: Exception) -> str:
    return (
        f"The connection was lost and did not come back ({error}). The job {job_id} itself may go "
        "on: follow it again when the network is back."
    )


def _new_events(client: OpenAI, job_id: str, heard: set[str]) -> list[FineTuningJobEvent]:
    """Events not heard before, oldest first; pages are asked for only as far as needed."""
    fresh = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=100):
        if event.id in heard:
            break
        fresh.append(event)
    heard.update(event.id for event in fresh)
    return fresh[::-1]


@dataclass(slots=True)
class _Pace:
    """The first step seen, from which the time left is reckoned."""

    step: int | None = None
    at: int = 0

    def seconds_left(self, step: int, total: int, now: int) -> float | None:
        if self.step is None or step <= self.step:
            self.step, self.at = step, now
            return None
        return (now - self.at) / (step - self.step) * (total - step)


def _advance(
    state: Progress, event: FineTuningJobEvent, pace: _Pace, finish: int | None
) -> Progress:
    """The state after an event. `finish` is when the job was or expects to be done, in unix
    seconds: it knows what follows the last step. The event's own time is of the same clock."""
    state = replace(state, message=event.message)
    if finish is not None:
        state = replace(state, seconds_left=max(0.0, finish - event.created_at))
    data = event.data
    if event.type != "metrics" or not isinstance(data, dict) or "step" not in data:
        return state
    step, total = int(data["step"]), data.get("total_steps")
    state = replace(state, step=step, total_steps=total, loss=data.get("train_loss"))
    if finish is None and total:
        state = replace(state, seconds_left=pace.seconds_left(step, total, event.created_at))
    return state


def fine_tuned_model(job: FineTuningJob) -> str:
    """The name of the model that a finished job made, or the reason why there is none."""
    if job.status == "succeeded" and job.fine_tuned_model:
        return job.fine_tuned_model
    reason = job.error.message if job.error and job.error.message else "no reason was given"
    if job.status == "failed":
        raise ProviderError(
            f"The job {job.id} failed: {reason}", code=job.error.code if job.error else None
        )
    raise InvalidRequestError(f"The job {job.id} is {job.status}: it made no model.")


def events(client: OpenAI, job_id: str, *, limit: int = 50) -> list[FineTuningJobEvent]:
    """The last `limit` events, oldest first."""
    with provider_errors():
        return client.fine_tuning.jobs.list_events(job_id, limit=limit).data[::-1]


def chat(
    client: OpenAI,
    model: str,
    text: str,
    *,
    system: str = SYSTEM_PROMPT,
    decoding: str | None = None,
    max_tokens: int = CHAT_TOKENS,
) -> str:
    """One reply to one message, under a system prompt unless that is empty.

    `decoding` is emojitune's own field: leave it out elsewhere.
    """
    opening: list[ChatCompletionMessageParam] = (
        [{"role": "system", "content": system}] if system else []
    )
    with provider_errors():
        answer = client.chat.completions.create(
            model=model,
            messages=[*opening, {"role": "user", "content": text}],
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"decoding": decoding} if decoding else None,
        )
    return answer.choices[0].message.content or ""
