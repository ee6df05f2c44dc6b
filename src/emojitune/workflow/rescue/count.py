"""What an account holds, counted before anything is copied."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from emojitune.workflow.rescue.copy import (
    BATCH,
    CHAT,
    FILE,
    JOB,
    MODEL,
    Kind,
    Report,
    is_fine_tuned,
)
from emojitune.workflow.rescue.folder import Part, RescueFolder
from emojitune.workflow.rescue.pages import Item
from emojitune.workflow.rescue.source import RefusedError, Source


@dataclass(frozen=True, slots=True)
class Count:
    """The objects of a kind.

    Attributes:
        new: Those that are not in the folder, or may have changed.
        bytes: The size of all files together; 0 for other kinds.
        refused: The provider's words if it does not list them.
    """

    title: str
    listed: int
    new: int
    bytes: int = 0
    refused: str | None = None


def count(source: Source, folder: RescueFolder, report: Report, *, chats: bool) -> Iterator[Count]:
    """Count the objects of each kind; stored completions only if `chats`."""
    lists: list[tuple[Kind, Callable[[], Iterable[Item]]]] = [
        (JOB, source.jobs),
        (FILE, source.files),
        (MODEL, lambda: (model for model in source.models() if is_fine_tuned(model.id))),
        (BATCH, source.batches),
    ]
    if chats:
        lists.append((CHAT, source.chats))
    for kind, fetch in lists:
        listed = new = size = 0
        refused = None
        try:
            for item in fetch():
                listed += 1
                new += not folder.is_final(Part(kind.name, item.id))
                announced = item.value.get("bytes")
                size += announced if isinstance(announced, int) else 0
                report(kind.title, listed, None)
        except RefusedError as error:
            refused = error.message
        yield Count(kind.title, listed, new, size, refused)
