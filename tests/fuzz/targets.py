"""The fuzz targets: the cases of each, and the promises that they must not break."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import conversations
import label_searches
import multipart_forms
import raw_http
import training_files
from api_requests import ApiRequest, corrupted, described
from fakes import FakeChatModel, FakeDispatcher
from harness import Harness, open_harness
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy
from servers import KEY, serving
from tiny_model import load_tiny

from emojitune.server.app import create_app
from emojitune.settings import Settings

TARGET_NAMES = ("described", "corrupted", "form", "raw_http", "file", "conversation", "search")


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """A fuzz target.

    Attributes:
        violations: Returns the promises that a case breaks.
        share: Percentage of the cases of a long run.
    """

    title: str
    cases: SearchStrategy[Any]
    violations: Callable[[Any], list[str]]
    share: int


@contextmanager
def open_targets(folder: Path) -> Iterator[dict[str, FuzzTarget]]:
    """All targets by name, over one application and one port."""
    set_hypothesis_home_dir(folder / "hypothesis")  # keeps its files out of the source tree
    settings = Settings(home=folder / "wire", cache=folder / "cache", api_key=KEY)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=lambda *_: FakeChatModel())
    with open_harness(folder) as harness, serving(app) as url:
        renderer = load_tiny(folder / "base").renderer
        document = harness.document
        targets = (
            FuzzTarget("requests by the description", described(document), _sending(harness), 45),
            FuzzTarget("JSON with mutated bytes", corrupted(document), _sending(harness), 12),
            FuzzTarget("multipart forms", multipart_forms.cases(), _sending(harness), 15),
            FuzzTarget(
                "bytes that are hardly HTTP",
                raw_http.cases(),
                lambda s: raw_http.violations(s, url),
                5,
            ),
            FuzzTarget("training files", training_files.cases(), training_files.violations, 10),
            FuzzTarget(
                "conversations",
                conversations.cases,
                lambda messages: conversations.violations(messages, renderer),
                8,
            ),
            FuzzTarget("searches", label_searches.cases, label_searches.violations, 5),
        )
        yield dict(zip(TARGET_NAMES, targets, strict=True))


def _sending(harness: Harness) -> Callable[[ApiRequest], list[str]]:
    def violations(request: ApiRequest) -> list[str]:
        return harness.violations(request, harness.send(request))

    return violations
