"""`emojitune run`: the main job, from the training file to the table of scores.

The order of the steps and the output between them; the steps themselves are in `workflow`.
"""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from openai.types.fine_tuning import FineTuningJob

from emojitune.cli.context import location_options
from emojitune.cli.data.files import check_usable
from emojitune.cli.invocation import command
from emojitune.cli.paths import display_name
from emojitune.cli.render import Screen, short_name
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.statistics import closed_vocabulary, describe
from emojitune.errors import InvalidRequestError, ProviderError
from emojitune.evaluation.report import ReportRow
from emojitune.labels import to_emoji
from emojitune.models.catalog import is_fine_tuned, pinned_weights, resolve_base
from emojitune.models.download import fetch
from emojitune.openai_calendar import (
    TRAINING_DOLLARS_PER_MILLION,
    fine_tuning_notice,
    training_dollars,
)
from emojitune.settings import Settings
from emojitune.workflow import fine_tune
from emojitune.workflow.provider import Connection, PromptForKey, connect, provider_errors
from emojitune.workflow.reply_cache import ReplyCaches, open_reply_caches
from emojitune.workflow.score import Candidate, label_candidates, score, supported, text_candidates

LAST_EVENTS = 5


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of the command line."""

    train: Path
    valid: Path
    model: str
    suffix: str
    epochs: int
    seed: int | None
    provider: str
    yes: bool


@dataclass(frozen=True, slots=True)
class CheckedData:
    """The examples of both files, validated."""

    training: tuple[TrainingExample, ...]
    validation: tuple[TrainingExample, ...]


def run(
    options: RunOptions, settings: Settings, screen: Screen, prompt_for_key: PromptForKey
) -> dict[str, Any]:
    """Run all steps and return the result for --json."""
    started = time.monotonic()
    data = _check_data(options, screen)
    if options.provider == "local":
        prepare_base(options.model, settings, screen)
    screen.heading("Connecting")
    with connect(options.provider, settings, prompt_for_key=prompt_for_key) as connection:
        started_note = " (started for this run)" if connection.server else ""
        screen.say(f"{connection.base_url}{started_note}")
        if options.provider == "openai":
            _confirm_hosted_cost(options, data, screen)
        result = _train_and_score(connection, options, settings, data, screen)
    result["seconds"] = round(time.monotonic() - started, 1)
    screen.say(f"\nDone in {result['seconds']:.0f} s.")
    return result


def _train_and_score(
    connection: Connection,
    options: RunOptions,
    settings: Settings,
    data: CheckedData,
    screen: Screen,
) -> dict[str, Any]:
    job_id = _create_job(connection, options, screen)
    job = follow(connection, job_id, settings, screen)
    model = fine_tune.fine_tuned_model(job)
    screen.heading("Last events")
    for event in fine_tune.events(connection.client, job_id, limit=LAST_EVENTS):
        screen.event(event.created_at, event.level, event.message)
    prompt, system = fine_tune.smoke_test_prompt(data.training, data.validation)
    reply = _smoke_test(connection, model, prompt, system, screen)
    rows = _score(connection, options, settings, model, data, screen)
    _show_next_steps(connection, model, settings, screen)
    return {
        "job": job.to_dict(mode="json"),
        "fine_tuned_model": model,
        "smoke_test": {"prompt": prompt, "reply": reply, "emoji": to_emoji(reply)},
        "scores": [row.to_dict() for row in rows],
    }


def _check_data(options: RunOptions, screen: Screen) -> CheckedData:
    screen.heading("Checking the data")
    training = check_usable(options.train, screen, minimum=10, name="training file")
    validation = check_usable(
        options.valid, screen, minimum=1, name="validation file", training=training
    )
    return CheckedData(training.examples, validation.examples)


def _confirm_hosted_cost(options: RunOptions, data: CheckedData, screen: Screen) -> None:
    tokens = describe(data.training).estimated_tokens
    dollars = training_dollars(tokens, options.epochs)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    screen.heading("Before this starts at OpenAI")
    screen.say(
        f"It trains on about {tokens * options.epochs} tokens: {tokens} x {options.epochs} epochs. "
        f"At gpt-3.5-turbo's last price, ${TRAINING_DOLLARS_PER_MILLION:g} for a million tokens, "
        f"that is about ${dollars:.2f}; "
        "an estimate, and scoring is charged on top.\n"
        f"{fine_tuning_notice(today)}\n"
        "Without --provider openai the same job runs on this machine, at no cost."
    )
    if not options.yes and not screen.ask("Start it?"):
        raise InvalidRequestError("Nothing was started. To skip the question, add --yes.")


def prepare_base(model: str, settings: Settings, screen: Screen) -> None:
    """Download the base model before a job needs it, with a progress bar."""
    if is_fine_tuned(model):
        return
    screen.heading("Preparing the base model")
    base = resolve_base(model, settings)
    with screen.progress_bars() as update:
        fetch(base, settings, update)
    screen.say(f"{model} is served by {base.title}")


def _create_job(connection: Connection, options: RunOptions, screen: Screen) -> str:
    screen.heading("Creating the job")
    file = fine_tune.upload(connection.client, options.train)
    screen.say(f"Uploaded {display_name(options.train)} as {file.id}")
    job = fine_tune.create_job(
        connection.client,
        training_file=file.id,
        model=options.model,
        suffix=options.suffix,
        n_epochs=options.epochs,
        seed=options.seed,
    )
    screen.say(f"{job.id} fine-tunes {job.model}, {options.epochs} epoch(s)")
    return job.id


def follow(
    connection: Connection, job_id: str, settings: Settings, screen: Screen
) -> FineTuningJob:
    """Draw the job until it ends. After Ctrl-C or a lost connection, print the commands to follow
    or cancel it."""
    screen.heading("Fine-tuning")
    location = location_options(connection.provider, settings)
    try:
        screen.follow(fine_tune.follow(connection.client, job_id))
    except KeyboardInterrupt:
        screen.say(f"\nThe job {job_id} continues without this terminal.", style="yellow")
        _show_follow_commands(job_id, location, screen)
        raise
    except ProviderError as error:
        if error.code == "connection_error":
            _show_follow_commands(job_id, location, screen)
        raise
    with provider_errors():
        return connection.client.fine_tuning.jobs.retrieve(job_id)


def _show_follow_commands(job_id: str, location: tuple[str, ...], screen: Screen) -> None:
    screen.say(f"  come back:  {command('jobs', 'follow', job_id, *location)}", style="yellow")
    screen.say(f"  stop it:    {command('jobs', 'cancel', job_id, *location)}", style="yellow")


def _smoke_test(
    connection: Connection, model: str, prompt: str, system: str, screen: Screen
) -> str:
    screen.heading("Smoke test")
    screen.say(prompt)
    reply = fine_tune.chat(
        connection.client, model, prompt, system=system, max_tokens=fine_tune.SMOKE_TEST_TOKENS
    )
    screen.reply(reply)
    return reply


def _score(
    connection: Connection,
    options: RunOptions,
    settings: Settings,
    model: str,
    data: CheckedData,
    screen: Screen,
) -> list[ReportRow]:
    screen.heading(f"Scores on {display_name(options.valid)}")
    vocabulary = closed_vocabulary(data.training)
    if vocabulary:
        candidates = label_candidates(model, base=options.model, vocabulary=vocabulary)
    else:
        screen.say(
            "The training file's replies are text, not a small closed set: they are compared as "
            "text."
        )
        candidates = text_candidates(model, base=options.model, examples=data.validation)
    caches = open_reply_caches(
        connection, candidates, settings, partial(pinned_weights, settings=settings)
    )
    table = _score_with_bars(connection, candidates, data.validation, vocabulary, caches, screen)
    if caches.hit:
        screen.say("The untuned base's replies come from the cache of an earlier run.")
    return table


def _score_with_bars(
    connection: Connection,
    candidates: tuple[Candidate, ...],
    examples: tuple[TrainingExample, ...],
    vocabulary: tuple[str, ...],
    caches: ReplyCaches,
    screen: Screen,
) -> list[ReportRow]:
    """Score the candidates that this provider supports, with a progress bar for each."""
    with screen.progress_bars() as update:
        table = score(
            connection.client,
            supported(candidates, is_emojitune=connection.is_emojitune),
            examples,
            vocabulary,
            is_emojitune=connection.is_emojitune,
            calibrated=False,  # not in the table, and takes as long again
            progress=lambda candidate, done, total: update(
                f"{short_name(candidate.model)}, {candidate.decoding}", done, total
            ),
            wrap=caches.wrap,
        )
    screen.scores(table)
    return table


def _show_next_steps(
    connection: Connection, model: str, settings: Settings, screen: Screen
) -> None:
    location = location_options(connection.provider, settings)
    screen.heading("What next")
    screen.say(f"Chat with it:         {command('chat', model, *location)}")
    if connection.provider == "local":
        screen.say(f"Serve it:             {command('serve', *location)}")
        url, key = f"http://{settings.url_host}:{settings.port}/v1", settings.home / "api_key"
        client = f"OpenAI(base_url={_quoted(url)}, api_key=open({_quoted(key)}).read().strip())"
    elif connection.provider == "openai":
        client = "OpenAI()"
    else:
        client = f"OpenAI(base_url={_quoted(connection.provider)})"
    screen.say("Use it with the SDK:  from openai import OpenAI")
    screen.say(f"                      client = {client}")
    screen.say("                      client.chat.completions.create(")
    screen.say(f"                          model={_quoted(model)}, messages=[...])")


def _quoted(text: object) -> str:
    """A Python string literal in double quotes, in JSON's syntax."""
    return json.dumps(str(text), ensure_ascii=False)
