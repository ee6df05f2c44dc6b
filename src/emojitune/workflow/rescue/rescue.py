"""The whole rescue: an account, a folder, the copy from one into the other, and the replies."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from emojitune.workflow.provider import Connection
from emojitune.workflow.rescue.copy import Copy, Report
from emojitune.workflow.rescue.count import Count, count
from emojitune.workflow.rescue.folder import Entry, RescueFolder, open_folder
from emojitune.workflow.rescue.patience import Patience
from emojitune.workflow.rescue.questions import Survey
from emojitune.workflow.rescue.replies import Replies
from emojitune.workflow.rescue.source import Source
from emojitune.workflow.rescue.summary import readme


@dataclass(frozen=True, slots=True)
class ReplyFile:
    """A file of replies: its questions, and how many the provider refused to answer."""

    path: Path
    questions: int
    refused: int


def open_source(
    connection: Connection,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> Source:
    """The account at the end of a connection.

    Args:
        say: Called with a sentence before each wait.
    """
    return Source(connection.client, Patience(say, sleep, clock))


def rescue(
    source: Source,
    folder: Path,
    report: Report,
    *,
    chats: bool = False,
    clock: Callable[[], float] = time.time,
) -> list[Entry]:
    """Copy an account into a folder and return the records of its manifest.

    The manifest and the README.md are written even if the copy ends early.
    """
    with open_folder(folder, source.url, clock) as opened:
        opened.save(is_complete=False)
        is_complete = False
        try:
            Copy(source, opened, report).run(chats=chats)
            is_complete = True
        finally:
            _close(opened, source, clock, is_complete)
        return opened.entries


def rescue_replies(
    source: Source,
    folder: Path,
    asked: Survey,
    report: Report,
    *,
    as_batch: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> ReplyFile:
    """Ask an old model what is missing in a folder.

    Raises:
        ProviderError: The model cannot be asked. What it said before is kept for the next run.
    """
    with open_folder(folder, source.url, clock) as opened:
        replies = Replies(opened, asked)
        try:
            if as_batch:
                replies.ask_batch(source, report, sleep)
            else:
                replies.ask(source, report)
        finally:
            _close(opened, source, clock, opened.is_complete)
        return ReplyFile(replies.path, len(asked.questions), replies.refused)


def missing_replies(source: Source, folder: Path, asked: Survey) -> Survey:
    """The questions that have no reply in a folder yet."""
    opened = RescueFolder(folder, time.time)
    opened.check_source(source.url)
    return Replies(opened, asked).missing


def dry_run(source: Source, folder: Path, report: Report, *, chats: bool = False) -> list[Count]:
    """Count what would be copied, without writing anything."""
    opened = RescueFolder(folder, time.time)
    opened.check_source(source.url)
    return list(count(source, opened, report, chats=chats))


def _close(
    folder: RescueFolder, source: Source, clock: Callable[[], float], is_complete: bool
) -> None:
    today = datetime.fromtimestamp(clock(), UTC).date()
    folder.write_readme(readme(folder, source.url, today, is_complete=is_complete))
    folder.sync()
    folder.save(is_complete=is_complete)
