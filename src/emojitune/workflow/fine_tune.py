"""The steps of fine-tuning: upload, create the job, follow it, list its events, chat.

Every function takes the SDK's client, for any provider.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import openai
from openai import OpenAI
from openai.types import FileObject
from openai.types.chat import ChatCompletionMessageParam
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from emojitune.dataset.example import TrainingExample
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.errors import ConfigurationError, InvalidRequestError, ProviderError
from emojitune.labels import SMOKE_TEST_PROMPT, SYSTEM_PROMPT, is_label
from emojitune.workflow.progress import Progress
from emojitune.workflow.provider import provider_errors

RECONNECT_SECONDS = 120.0  # how long to retry a lost connection while following a job
SMOKE_TEST_TOKENS = 50
CHAT_TOKENS = 1024

# Errors that a later poll may not see; any other error would only repeat.
_TRANSIENT_ERRORS = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)


def upload(client: OpenAI, path: Path) -> FileObject:
    """Upload a training file."""
    try:
        with path.open("rb") as file, provider_errors():
            name = path.name.encode(errors="replace").decode()  # a file name may not be UTF-8
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
    """Create the job; the provider chooses the values that are None."""
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
    reconnect_seconds: float = RECONNECT_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Progress]:
    """Yield the job's progress for each new event and each poll, until a terminal state.

    Transient errors are retried for up to `reconnect_seconds`; other errors are raised.
    """
    state = Progress(job_id, "unknown")
    timer = _StepTimer()
    seen: set[str] = set()
    last_contact = time.monotonic()
    while not state.finished:
        try:
            # The job first: once it is terminal, its last event has been written.
            job = client.fine_tuning.jobs.retrieve(job_id)
            new_events = _new_events(client, job_id, seen)
        except (openai.OpenAIError, json.JSONDecodeError) as error:
            if not isinstance(error, _TRANSIENT_ERRORS):
                with provider_errors():
                    raise
            if time.monotonic() - last_contact > reconnect_seconds:
                message = _connection_lost(job_id, error)
                raise ProviderError(message, code="connection_error") from error
            yield replace(state, message="Connection lost; trying again ...")
            sleep(interval)
            continue
        last_contact = time.monotonic()
        state = replace(state, epochs=_epochs(job))
        for event in new_events:
            state = _after_event(state, event, timer, job.finished_at or job.estimated_finish)
            yield state
        state = replace(state, status=job.status, message=None)
        yield state
        if not state.finished:
            sleep(interval)


def _epochs(job: FineTuningJob) -> int | None:
    epochs = job.hyperparameters.n_epochs
    return epochs if isinstance(epochs, int) else None  # "auto" until the job is planned


def _connection_lost(job_id: str, error: Exception) -> str:
    return (
        f"The connection was lost and did not come back ({error}). The job {job_id} itself may "
        "still be running: follow it again when the network is back."
    )


def _new_events(client: OpenAI, job_id: str, seen: set[str]) -> list[FineTuningJobEvent]:
    """Events not seen before, oldest first; requests no more pages than needed."""
    new_events = []
    for event in client.fine_tuning.jobs.list_events(job_id, limit=100):
        if event.id in seen:
            break
        new_events.append(event)
    seen.update(event.id for event in new_events)
    return new_events[::-1]


@dataclass(slots=True)
class _StepTimer:
    """Estimates the remaining time from the first step that was seen."""

    step: int | None = None
    at: int = 0

    def seconds_left(self, step: int, total: int, now: int) -> float | None:
        if self.step is None or step <= self.step:
            self.step, self.at = step, now
            return None
        return (now - self.at) / (step - self.step) * (total - step)


def _after_event(
    state: Progress, event: FineTuningJobEvent, timer: _StepTimer, finish: int | None
) -> Progress:
    """The state after an event.

    `finish` is the actual or estimated end of the job in unix seconds, by the same clock as the
    event's time. It includes the work after the last step.
    """
    state = replace(state, message=event.message)
    if finish is not None:
        state = replace(state, seconds_left=max(0.0, finish - event.created_at))
    data = event.data
    if event.type != "metrics" or not isinstance(data, dict) or "step" not in data:
        return state
    step, total = int(data["step"]), data.get("total_steps")
    state = replace(state, step=step, total_steps=total, loss=data.get("train_loss"))
    if finish is None and total:
        state = replace(state, seconds_left=timer.seconds_left(step, total, event.created_at))
    return state


def fine_tuned_model(job: FineTuningJob) -> str:
    """The name of the model that a finished job made.

    Raises:
        ProviderError: The job failed.
        InvalidRequestError: The job has no model: it was cancelled or has not finished.
    """
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


def smoke_test_prompt(
    training: Sequence[TrainingExample], validation: Sequence[TrainingExample]
) -> tuple[str, str]:
    """The prompt and the system prompt of the smoke test: for a model that does not reply in emoji
    labels, the prompt is the first one of the validation file."""
    first = validation[0]
    systems = (turn.content for turn in first.prompt if turn.role in ("system", "developer"))
    labels = closed_vocabulary(training)
    replies_in_emoji = bool(labels) and all(map(is_label, labels))
    return SMOKE_TEST_PROMPT if replies_in_emoji else first.question, next(systems, "")


def chat(
    client: OpenAI,
    model: str,
    text: str,
    *,
    system: str = SYSTEM_PROMPT,
    decoding: str | None = None,
    max_tokens: int = CHAT_TOKENS,
) -> str:
    """The reply to one message, under a system prompt unless that is empty.

    `decoding` is a field of emojitune's own API: leave it out with other providers.
    """
    system_messages: list[ChatCompletionMessageParam] = (
        [{"role": "system", "content": system}] if system else []
    )
    with provider_errors():
        answer = client.chat.completions.create(
            model=model,
            messages=[*system_messages, {"role": "user", "content": text}],
            max_tokens=max_tokens,
            temperature=0,
            extra_body={"decoding": decoding} if decoding else None,
        )
    return answer.choices[0].message.content or ""
