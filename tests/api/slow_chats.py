"""A chat model that replies only when a test lets it."""

from dataclasses import replace
from pathlib import Path

from fakes import FakeChatModel, FakeDispatcher
from fastapi import FastAPI
from servers import KEY

from emojitune.dataset.example import Message
from emojitune.server.app import create_app
from emojitune.settings import Settings


class SlowChatModel(FakeChatModel):
    """Replies to the first `quick` requests; later ones wait until they are cancelled."""

    def __init__(self, quick: int) -> None:
        super().__init__()
        self._quick = iter(range(quick))  # `next` is atomic, for concurrent requests

    def start(self, request, listener):  # type: ignore[no-untyped-def]
        if next(self._quick, None) is None:
            request = replace(request, messages=[Message("user", "go on for ever")])
        return super().start(request, listener)


def app_with(home: Path, model: FakeChatModel) -> FastAPI:
    settings = Settings(home=home, cache=home / "cache", api_key=KEY)
    return create_app(settings, dispatcher=FakeDispatcher(), load_model=lambda *_: model)
