"""The README.md of a copy: in words what is there, what is missing and why, and what ends when."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from emojitune.openai_calendar import fine_tuning_notice
from emojitune.workflow.provider import OPENAI_URL
from emojitune.workflow.rescue.folder import MANIFEST, Entry, Part, RescueFolder

MAX_NAMED = 20  # objects that are listed for one reason; the manifest has all of them


def readme(folder: RescueFolder, source: str, today: date, *, is_complete: bool) -> str:
    """The text of the README.md.

    Args:
        is_complete: Whether the copy came to its end.
    """
    entries = folder.entries
    parts = (
        f"# What was copied from {source}",
        _state(today, is_complete),
        "## What is here",
        "\n".join(_contents(folder, entries)),
        _how_it_is_kept(),
        "## What ends when",
        "\n".join(_ends(folder, source, today)),
        "## What is missing",
        "\n".join(_refused(entries)),
    )
    return "\n\n".join(parts) + "\n"


def counts(entries: Iterable[Entry]) -> dict[str, int]:
    """The number of objects of each kind that are there, of files with content, and of lines."""
    found: Counter[str] = Counter()
    for entry in entries:
        if entry.path is None:
            continue
        if entry.part == "object" and entry.kind != "list":
            found[entry.kind] += 1
        elif entry.part == "content":
            found["content"] += 1
            found["bytes"] += entry.bytes or 0
        elif entry.part in ("events", "checkpoints", "messages"):
            found[entry.part] += entry.items or 0
    return dict(found)


def _state(today: date, is_complete: bool) -> str:
    if is_complete:
        return (
            f"Copied on {today} by `emojitune rescue`. The same command on this folder fetches "
            "what is new since, and the end of jobs and batches that had not ended."
        )
    return (
        f"**This copy is not complete.** It stopped on {today} before its end. What is here is "
        "whole. Run the same `emojitune rescue` on this folder again, and it goes on."
    )


def _contents(folder: RescueFolder, entries: list[Entry]) -> Iterator[str]:
    found = counts(entries)
    statuses = Counter(
        str(folder.read(Part("job", job)).get("status")) for job in folder.ids("job")
    )
    by_status = ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))
    yield "| folder | what | how many |"
    yield "|---|---|---|"
    yield (
        "| `jobs/` | fine-tuning jobs (`job.json`), with `events.jsonl` and `checkpoints.jsonl` | "
        f"{found.get('job', 0)} jobs{f' ({by_status})' if by_status else ''}, "
        f"{found.get('events', 0)} events, {found.get('checkpoints', 0)} checkpoints |"
    )
    yield (
        "| `files/` | files (`file.json`), each with its content under its own name; result files "
        "as they came (`.received`) and as CSV | "
        f"{found.get('file', 0)} files, {found.get('content', 0)} of them with their content "
        f"({found.get('bytes', 0)} bytes) |"
    )
    yield f"| `models/` | fine-tuned models (`model.json`) | {found.get('model', 0)} |"
    yield (
        "| `batches/` | batches (`batch.json`); their input, output and errors are in `files/` | "
        f"{found.get('batch', 0)} |"
    )
    yield (
        "| `chats/` | stored completions (`chat.json`, `messages.jsonl`), only with `--chats` | "
        f"{found.get('chat', 0)} |"
    )
    yield (
        "| `replies/` | replies of models to a file of examples, with `--replies` | "
        f"{found.get('reply', 0)} models |"
    )
    yield "| `lists/` | the list of all models, with the days on which they are shut down | |"


def _how_it_is_kept() -> str:
    return (
        "Every JSON text is as the provider sent it. In a file that ends in `.jsonl`, each line is "
        "one object, in the provider's order: the newest event first.\n\n"
        f"`{MANIFEST}` lists every file here with its SHA-256, where and when it came from, and "
        "which id its folder stands for: a name like `ft:gpt-4o-mini:org::id` is not safe on "
        "every file system, and becomes `ft_gpt-4o-mini_org_id`.\n\n"
        "Training files, batches and stored completions may hold what people wrote. Only your user "
        "account can read this folder: keep it so when you copy it."
    )


def _ends(folder: RescueFolder, source: str, today: date) -> Iterator[str]:
    if source == OPENAI_URL:
        yield from (f"- {sentence}" for sentence in fine_tuning_notice(today).split("\n"))
    dates = []
    for name in folder.ids("model"):
        day = folder.read(Part("model", name)).get("shutdown_date")
        if isinstance(day, str) and day:
            verb = "is" if str(today) <= day else "was"
            dates.append(f"- `{name}` {verb} shut down on {day}.")
    yield from dates
    if source != OPENAI_URL and not dates:
        yield (
            "The provider names no day for the models that are here. Azure's calendar is not "
            "OpenAI's: look it up at Microsoft."
        )


def _refused(entries: list[Entry]) -> Iterator[str]:
    """The refused objects by reason."""
    by_reason: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.refused is not None:
            by_reason.setdefault(_reason(entry.refused), []).append(entry)
    if not by_reason:
        yield "Nothing was refused."
    for (status, message), refused in sorted(by_reason.items()):
        named = [f"{entry.part} of {entry.kind} `{entry.id}`" for entry in refused[:MAX_NAMED]]
        more = len(refused) - len(named)
        ending = f", and {more} more in `{MANIFEST}`" if more else ""
        yield f"- {status}: “{message}” {'; '.join(named)}{ending}."
    noted = [entry for entry in entries if entry.note]
    for entry in noted[:MAX_NAMED]:
        yield f"- {entry.part} of {entry.kind} `{entry.id}`: {entry.note}"


def _reason(refused: dict[str, Any]) -> tuple[str, str]:
    status = refused.get("status")
    message = " ".join(str(refused.get("message")).split())
    return f"Refused with {status}" if status else "Not usable", message
