"""`emojitune rescue`: a copy of everything that a provider holds, and what could not be had."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emojitune.cli.render import Screen
from emojitune.errors import InvalidRequestError
from emojitune.workflow.provider import PromptForKey, azure_url, connect
from emojitune.workflow.rescue.count import Count
from emojitune.workflow.rescue.folder import MANIFEST, README, Entry
from emojitune.workflow.rescue.rescue import dry_run, open_source
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
}


@dataclass(frozen=True, slots=True)
class RescueOptions:
    """The options of the command line."""

    folder: Path
    provider: str
    resource: str | None = None
    chats: bool = False
    dry_run: bool = False


def rescue(options: RescueOptions, screen: Screen, prompt_for_key: PromptForKey) -> dict[str, Any]:
    """Copy, or count with --dry-run, and return the result for --json."""
    with connect(_provider(options), prompt_for_key=prompt_for_key) as connection:
        source = open_source(connection, lambda text: screen.say(text, style="yellow"))
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
