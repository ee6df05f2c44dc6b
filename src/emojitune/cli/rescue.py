"""`emojitune rescue`: a copy of everything that a provider holds, and what could not be had."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emojitune.cli.data.files import check_usable
from emojitune.cli.render import Screen
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.protocol import scoring_vocabulary, text_token_limit
from emojitune.openai_calendar import BATCH_SHARE, chat_prices
from emojitune.workflow.provider import OPENAI_URL, Connection, PromptForKey, azure_url, connect
from emojitune.workflow.rescue.count import Count
from emojitune.workflow.rescue.folder import MANIFEST, README, Entry
from emojitune.workflow.rescue.questions import Survey, survey
from emojitune.workflow.rescue.rescue import (
    dry_run,
    missing_replies,
    open_source,
    rescue_replies,
)
from emojitune.workflow.rescue.rescue import rescue as copy_into
from emojitune.workflow.rescue.source import Source
from emojitune.workflow.rescue.summary import counts

_TITLES = {
    "job": "fine-tuning jobs",
    "events": "events of jobs",
    "checkpoints": "checkpoints",
    "file": "files",
    "content": "files with their content",
    "model": "fine-tuned models",
    "batch": "batches",
    "chat": "stored completions",
    "messages": "messages of stored completions",
    "reply": "models with their replies",
}


@dataclass(frozen=True, slots=True)
class RescueOptions:
    """The options of the command line."""

    folder: Path
    provider: str
    resource: str | None = None
    chats: bool = False
    dry_run: bool = False
    replies: str | None = None
    file: Path | None = None
    batch: bool = False
    deployments: tuple[str, ...] = ()
    yes: bool = False


def rescue(options: RescueOptions, screen: Screen, prompt_for_key: PromptForKey) -> dict[str, Any]:
    """Copy, count with --dry-run, or ask with --replies, and return the result for --json."""
    if options.replies is None and (options.file or options.batch or options.deployments):
        raise InvalidRequestError("--data, --batch and --deployment belong to --replies MODEL.")
    with connect(_provider(options), prompt_for_key=prompt_for_key) as connection:
        source = open_source(connection, lambda text: screen.say(text, style="yellow"))
        if options.replies is not None:
            return _ask(connection, source, options, screen)
        screen.heading(f"Reading from {source.url}")
        if options.dry_run:
            return _count(source, options, screen)
        with screen.progress_bars(remaining=True) as report:
            entries = copy_into(source, options.folder, report, chats=options.chats)
    return _show(options.folder, entries, screen)


def _provider(options: RescueOptions) -> str:
    provider = options.provider.strip()
    if provider == "azure":
        if options.resource is None:
            raise InvalidRequestError(
                "--provider azure needs --resource NAME, the first part of "
                "https://NAME.openai.azure.com."
            )
        return azure_url(options.resource)
    if options.resource is not None:
        raise InvalidRequestError(
            "--resource is the name of an Azure resource: add --provider azure."
        )
    if provider == "local":
        raise InvalidRequestError(
            "A local server's own copy is made by `emojitune backup`. To read a server as a "
            "provider, name its base URL."
        )
    return provider or "openai"


def _count(source: Source, options: RescueOptions, screen: Screen) -> dict[str, Any]:
    with screen.progress_bars(remaining=True) as report:
        counted = dry_run(source, options.folder, report, chats=options.chats)
    screen.table(("", "there", "to fetch", "bytes"), [_cells(one) for one in counted])
    for one in counted:
        if one.refused is not None:
            screen.say(f"The provider does not list {one.title}: {one.refused}", style="yellow")
    screen.say("Events, checkpoints and messages are not counted. Nothing was written.")
    return {"source": source.url, "counts": [asdict(one) for one in counted]}


def _ask(
    connection: Connection, source: Source, options: RescueOptions, screen: Screen
) -> dict[str, Any]:
    """Ask an old model, after a question about what that costs."""
    asked = _survey(options, connection.is_emojitune, screen)
    missing = missing_replies(source, options.folder, asked)
    result = {"model": asked.model, "questions": len(asked.questions)}
    if options.dry_run or missing.questions:
        _show_cost(connection, missing, options, screen)
    if options.dry_run:
        return {**result, "missing": len(missing.questions)}
    if missing.questions and not options.yes and not screen.ask("Ask it?"):
        raise InvalidRequestError("Nothing was asked. To skip the question, add --yes.")
    with screen.progress_bars(remaining=True) as report:
        kept = rescue_replies(source, options.folder, asked, report, as_batch=options.batch)
    screen.say(f"{kept.path} has the replies to {kept.questions} conversation(s).")
    if kept.refused:
        screen.say(f"The provider refused to answer {kept.refused} of them.", style="yellow")
    return {**result, "path": str(kept.path), "refused": kept.refused}


def _survey(options: RescueOptions, is_emojitune: bool, screen: Screen) -> Survey:
    model = options.replies or ""
    if options.file is None:
        raise InvalidRequestError("--replies needs --data FILE, the examples to ask.")
    named = dict(_deployment(text) for text in options.deployments)
    examples = check_usable(options.file, screen, minimum=1, name="validation file").examples
    text_tokens = None if scoring_vocabulary(examples) else text_token_limit(examples)
    return survey(
        model,
        examples,
        deployment=named.get(model),
        text_tokens=text_tokens,
        is_emojitune=is_emojitune,
    )


def _deployment(text: str) -> tuple[str, str]:
    model, found, name = text.rpartition("=")
    if not (model and found and name):
        raise InvalidRequestError(f"--deployment is MODEL=NAME, not {text!r}.")
    return model, name


def _show_cost(
    connection: Connection, asked: Survey, options: RescueOptions, screen: Screen
) -> None:
    screen.heading(f"Before {asked.deployment} is asked")
    screen.say(
        f"{len(asked.questions)} conversation(s), {len(asked.requests)} request(s) for each: about "
        f"{asked.input_tokens} tokens of prompts, and at most {asked.output_tokens} of replies."
    )
    prices = chat_prices(asked.model) if connection.base_url == OPENAI_URL else None
    if prices is None:
        screen.say(f"What {connection.base_url} charges for this model is not known here.")
        return
    dollars = (asked.input_tokens * prices[0] + asked.output_tokens * prices[1]) / 1_000_000
    share = BATCH_SHARE if options.batch else 1
    screen.say(
        f"At the last known prices, ${prices[0]:g} and ${prices[1]:g} for a million tokens"
        f"{' and half of that in a batch' if options.batch else ''}, that is at most about "
        f"${dollars * share:.2f}; an estimate."
    )


def _cells(one: Count) -> tuple[str, str, str, str]:
    if one.refused is not None:
        return one.title, "refused", "", ""
    return one.title, str(one.listed), str(one.new), str(one.bytes or "")


def _show(folder: Path, entries: Sequence[Entry], screen: Screen) -> dict[str, Any]:
    found = counts(entries)
    refused = [entry for entry in entries if entry.refused is not None]
    screen.table(
        ("in the folder", ""),
        [(title, str(found[name])) for name, title in _TITLES.items() if name in found],
    )
    reasons = Counter(str((entry.refused or {})["message"]) for entry in refused)
    for reason, number in reasons.most_common():
        screen.say(f"{number} refused: {reason}", style="yellow")
    screen.say(f"{folder / README} says in words what is there; {MANIFEST} lists every file.")
    return {"folder": str(folder), **found, "refused": [asdict(entry) for entry in refused]}
