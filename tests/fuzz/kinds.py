"""Everything that is fuzzed: what cases there are, and what must hold for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conversations
import lines
import searches
import wire
from asking import Asked, described, garbled
from fakes import FakeChatModel, FakeDispatcher
from forms import forms
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy
from servers import KEY, serving
from tiny_model import load_tiny
from world import World, open_world

from emojitune.server.app import create_app
from emojitune.settings import Settings

NAMES = ("described", "garbled", "form", "wire", "file", "conversation", "search")


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that is fuzzed.

    Attributes:
        faults: What is promised and not kept in a case.
        share: How many of a hundred cases of a long run are of this kind.
    """

    title: str
    cases: SearchStrategy[Any]
    faults: Callable[[Any], list[str]]
    share: int


@contextmanager
def all_kinds(folder: Path) -> Iterator[dict[str, Kind]]:
    """Every kind by its name, over one application and one port."""
    set_hypothesis_home_dir(folder / "hypothesis")  # what it notes is not for the source tree
    settings = Settings(home=folder / "wire", cache=folder / "cache", api_key=KEY)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=lambda *_: FakeChatModel())
    with open_world(folder) as world, serving(app) as url:
        renderer = load_tiny(folder / "base").renderer
        document = world.document
        kinds = (
            Kind("requests by the description", described(document), _asking(world), 45),
            Kind("JSON with spoiled bytes", garbled(document), _asking(world), 12),
            Kind("multipart forms", forms(), _asking(world), 15),
            Kind("bytes that are hardly HTTP", wire.wires(), lambda s: wire.faults(s, url), 5),
            Kind("training files", lines.files(), lines.faults, 10),
            Kind(
                "conversations",
                conversations.conversations,
                lambda messages: conversations.faults(messages, renderer),
                8,
            ),
            Kind("searches", searches.searches, searches.faults, 5),
        )
        yield dict(zip(NAMES, kinds, strict=True))


def _asking(world: World) -> Callable[[Asked], list[str]]:
    def faults(asked: Asked) -> list[str]:
        return world.faults(asked, world.send(asked))

    return faults
