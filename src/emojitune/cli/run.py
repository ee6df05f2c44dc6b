"""`emojitune run`: the main job, from the training file to the table of scores.

The order of the steps, and what is said between them. Each step itself is the workflow's.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openai.types.fine_tuning import FineTuningJob

from emojitune.cli.context import options_to
from emojitune.cli.data.files import check_usable
from emojitune.cli.data.standard_input import title
from emojitune.cli.program import command
from emojitune.cli.render import Screen, short_name
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.statistics import closed_vocabulary, describe, hosted_dollars
from emojitune.errors import InvalidRequestError, ProviderError
from emojitune.evaluation.report import ReportRow
from emojitune.labels import (
    SMOKE_TEST_PROMPT,
    SYSTEM_PROMPT,
    is_label,
    to_emoji,
)
from emojitune.models.catalog import WheelSource, resolve_base
from emojitune.models.download import fetch
from emojitune.openai_calendar import fine_tuning_notice
from emojitune.settings import Settings
from emojitune.workflow import fine_tune
from emojitune.workflow.provider import AskKey, Connection, connect, provider_errors
from emojitune.workflow.reply_cache import KeptReplies
from emojitune.workflow.score import FREE, Contender, contenders, score, text_contenders

LAST_EVENTS = 5


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What was asked for on the command line."""

    train: Path
    valid: Path
    model: str
    suffix: str
    epochs: int
    seed: int | None
    provider: str
    yes: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Both files, checked."""

    training: tuple[TrainingExample, ...]
    validation: tuple[TrainingExample, ...]


def run(options: RunOptions, settings: Settings, screen: Screen, ask_key: AskKey) -> dict[str, Any]:
    """Do it all; returns what --json prints."""
    started = time.monotonic()
    data = _check_data(options, screen)
    if options.provider == "local":
        prepare_base(options.model, settings, screen)
    screen.step("Connecting")
    with connect(options.provider, settings, ask_key=ask_key) as connection:
        started_it = " (started for this run)" if connection.server else ""
        screen.say(f"{connection.base_url}{started_it}")
        if options.provider == "openai":
            _agree_to_hosted(options, data, screen)
        result = _train_and_score(connection, options, settings, data, screen)
    result["seconds"] = round(time.monotonic() - started, 1)
    screen.say(f"\nDone in {result['seconds']:.0f} s.")
    return result


def _train_and_score(
    connection: Connection, options: RunOptions, settings: Settings, data: Data, screen: Screen
) -> dict[str, Any]:
    job_id = _create_job(connection, options, screen)
    job = follow(connection, job_id, settings, screen)
    model = fine_tune.fine_tuned_model(job)
    screen.step("Last events")
    for event in fine_tune.events(connection.client, job_id, limit=LAST_EVENTS):
        screen.event(event.created_at, event.level, event.message)
    prompt, system = _smoke_prompt(data)
    reply = _smoke_test(connection, model, prompt, system, screen)
    rows = _score(connection, options, settings, model, data, screen)
    _what_next(connection, model, settings, screen)
    return {
        "job": job.to_dict(mode="json"),
        "fine_tuned_model": model,
        "smoke_test": {"prompt": prompt, "reply": reply, "emoji": to_emoji(reply)},
        "scores": [row.to_dict() for row in rows],
    }


def _check_data(options: RunOptions, screen: Screen) -> Data:
    screen.step("Checking the data")
    training = check_usable(options.train, screen, minimum=10, name="training file")
    validation = check_usable(
        options.valid, screen, minimum=1, name="validation file", training=training
    )
    return Data(training.examples, validation.examples)


def _agree_to_hosted(options: RunOptions, data: Data, screen: Screen) -> None:
    tokens = describe(data.training).estimated_tokens
    dollars = hosted_dollars(tokens, options.epochs)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    screen.step("Before this starts at OpenAI")
    screen.say(
        f"It trains on about {tokens * options.epochs} tokens: {tokens} x {options.epochs} epochs. "
        f"At gpt-3.5-turbo's last price, $8 for a million tokens, that is about ${dollars:.2f}; "
        "an estimate, and scoring is charged on top.\n"
        f"{fine_tuning_notice(today)}\n"
        "Without --provider openai the same job runs on this machine, at no cost."
    )
    if not options.yes and not screen.ask("Start it?"):
        raise InvalidRequestError("Nothing was started. To agree without being asked, add --yes.")


def prepare_base(model: str, settings: Settings, screen: Screen) -> None:
    """Have the base model on this disk before a job needs it: here its download has a bar."""
    if model.startswith("ft:"):
        return
    screen.step("Preparing the base model")
    base = resolve_base(model, settings)
    with screen.counting() as count:
        fetch(base, settings, count)
    screen.say(f"{model} is served by {base.title}")


def _create_job(connection: Connection, options: RunOptions, screen: Screen) -> str:
    screen.step("Creating the job")
    file = fine_tune.upload(connection.client, options.train)
    screen.say(f"Uploaded {title(options.train)} as {file.id}")
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
    """Draw the job until it ends; whether Ctrl-C or the network breaks in, say how to come back."""
    screen.step("Fine-tuning")
    where = options_to(connection.provider, settings)
    try:
        screen.follow(fine_tune.follow(connection.client, job_id))
    except KeyboardInterrupt:
        screen.say(f"\nThe job {job_id} goes on without this terminal.", style="yellow")
        _say_how_to_come_back(job_id, where, screen)
        raise
    except ProviderError as error:
        if error.code == "connection_error":
            _say_how_to_come_back(job_id, where, screen)
        raise
    with provider_errors():
        return connection.client.fine_tuning.jobs.retrieve(job_id)


def _say_how_to_come_back(job_id: str, where: tuple[str, ...], screen: Screen) -> None:
    screen.say(f"  come back:  {command('jobs', 'follow', job_id, *where)}", style="yellow")
    screen.say(f"  stop it:    {command('jobs', 'cancel', job_id, *where)}", style="yellow")


def _smoke_prompt(data: Data) -> tuple[str, str]:
    """What is said to the model, and under which system prompt; where it does not speak in emoji,
    as the validation file begins."""
    first = data.validation[0]
    systems = (said.content for said in first.prompt if said.role in ("system", "developer"))
    labels = closed_vocabulary(data.training)
    speaks_emoji = bool(labels) and all(map(is_label, labels))
    return SMOKE_TEST_PROMPT if speaks_emoji else first.question, next(systems, "")


def _smoke_test(
    connection: Connection, model: str, prompt: str, system: str, screen: Screen
) -> str:
    screen.step("Smoke test")
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
    data: Data,
    screen: Screen,
) -> list[ReportRow]:
    screen.step(f"Scores on {title(options.valid)}")
    vocabulary = closed_vocabulary(data.training)
    if vocabulary:
        rows = contenders(model, base=options.model, vocabulary=vocabulary)
    else:
        screen.say(
            "The training file's replies are text, and no small closed set: compared as text."
        )
        rows = text_contenders(model, base=options.model, examples=data.validation)
    kept = _kept_replies(connection, rows, settings)
    table = _score_with_bars(connection, rows, data.validation, vocabulary, kept, screen)
    if any(replies.used for replies in kept.values()):
        screen.say(
            "The untuned base's replies are known from an earlier run, and were not asked for."
        )
    return table


def _kept_replies(
    connection: Connection, rows: tuple[Contender, ...], settings: Settings
) -> dict[Contender, KeptReplies]:
    """What is known of an untuned base that never changes, if this very program replies."""
    base, *_ = rows
    if connection.server is None or base.model.startswith("ft:"):
        return {}
    found = resolve_base(base.model, settings)
    if not isinstance(found.source, WheelSource):
        return {}
    computed = (settings.device, settings.dtype, settings.threads)
    return {
        row: KeptReplies(settings.cache / "replies", repr((found, computed, row)))
        for row in rows
        if row.model == base.model
    }


def _score_with_bars(
    connection: Connection,
    rows: tuple[Contender, ...],
    examples: tuple[TrainingExample, ...],
    vocabulary: tuple[str, ...],
    kept: dict[Contender, KeptReplies],
    screen: Screen,
) -> list[ReportRow]:
    """Score what this provider can do, with a bar for each contender."""
    if not connection.is_emojitune:
        # Only emojitune constrains, and the untuned base has been retired elsewhere.
        rows = tuple(row for row in rows if row.decoding == FREE)[-1:]
    with screen.counting() as count:
        table = score(
            connection.client,
            rows,
            examples,
            vocabulary,
            is_emojitune=connection.is_emojitune,
            calibrated=False,  # the table does not show it, and it takes as long again
            progress=lambda row, done, of: count(
                f"{short_name(row.model)}, {row.decoding}", done, of
            ),
            kept=kept.get,
        )
    screen.scores(table)
    return table


def chat(
    connection: Connection,
    model: str,
    said: Iterable[str],
    *,
    system: str | None,
    free: bool,
    screen: Screen,
) -> None:
    """Reply to each message that is not empty; there has to be one."""
    with provider_errors():
        found = connection.client.models.retrieve(model)  # a wrong name is told before all else
    if system is None:  # other servers do not say which one a model was trained under
        told: str | None = (found.model_extra or {}).get("system_prompt")
        system = SYSTEM_PROMPT if told is None else told
    text = ""
    for text in filter(None, said):
        reply = fine_tune.chat(
            connection.client,
            model,
            text,
            system=system,
            decoding="free" if free else None,
        )
        screen.reply(reply)
    if not text:
        raise InvalidRequestError(
            "Nothing was said, and nothing was asked. Give a message after the model's name, or "
            "one on each line of standard input."
        )


def _what_next(connection: Connection, model: str, settings: Settings, screen: Screen) -> None:
    where = options_to(connection.provider, settings)
    screen.step("What next")
    screen.say(f"Chat with it:         {command('chat', model, *where)}")
    if connection.provider == "local":
        screen.say(f"Serve it:             {command('serve', *where)}")
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
    """A string of Python between double quotes, which JSON's are."""
    return json.dumps(str(text), ensure_ascii=False)
