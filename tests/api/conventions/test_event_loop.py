import asyncio
from typing import Any

import httpx2
import pytest

from emojitune.server.chat.messages import ChatMessage
from emojitune.server.responses import conversation


def in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize(
    ("path", "field", "place", "function"),
    [
        ("/chat/completions", "messages", ChatMessage, "to_message"),
        ("/responses", "input", conversation, "to_messages"),
    ],
)
def test_messages_are_made_in_a_thread(
    http: httpx2.Client,
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    field: str,
    place: Any,
    function: str,
) -> None:
    original = getattr(place, function)
    places: list[bool] = []

    def noted(given: Any) -> Any:
        places.append(in_event_loop())
        return original(given)

    monkeypatch.setattr(place, function, noted)
    body = {"model": "gpt-3.5-turbo", field: [{"role": "user", "content": "Hello."}]}
    assert http.post(f"{url}{path}", json=body).is_success
    assert places == [False]
