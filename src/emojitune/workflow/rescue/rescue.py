"""The whole rescue: an account, a folder, and the copy from one into the other."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from emojitune.workflow.provider import Connection
from emojitune.workflow.rescue.copy import Copy, Report
from emojitune.workflow.rescue.count import Count, count
from emojitune.workflow.rescue.folder import Entry, RescueFolder, open_folder
from emojitune.workflow.rescue.patience import Patience
from emojitune.workflow.rescue.source import Source
from emojitune.workflow.rescue.summary import readme


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
        is_complete = False
        try:
            Copy(source, opened, report).run(chats=chats)
            is_complete = True
        finally:
            today = datetime.fromtimestamp(clock(), UTC).date()
            text = readme(opened, source.url, today, is_complete=is_complete)
            opened.finish(text, is_complete=is_complete)
        return opened.entries


def dry_run(source: Source, folder: Path, report: Report, *, chats: bool = False) -> list[Count]:
    """Count what would be copied, without writing anything."""
    opened = RescueFolder(folder, time.time)
    opened.check_source(source.url)
    return list(count(source, opened, report, chats=chats))
