"""What is told of a reply while it grows, and that its pieces make the whole."""

from typing import Any

import pytest

from emojitune.dataset.tool_format import Tool, call_text, spoken
from emojitune.inference.decoding.sampling import TokenScore
from emojitune.inference.detokenizer import Detokenizer
from emojitune.inference.types import ChatParameters, Delta, TokenLogprob, ToolUse
from emojitune.models.loader import LoadedModel
from emojitune.models.renderer import Renderer

STOP = Tool("stop_it", {"type": "object", "properties": {}, "additionalProperties": False})
CALL = call_text("stop_it", "{}")


@pytest.fixture
def renderer(tiny: LoadedModel) -> Renderer:
    return tiny.renderer


def written(renderer: Renderer, text: str, **parameters: Any) -> list[Delta]:
    """All that is told of a reply of this text, until it ends or is stopped."""
    told: list[Delta] = []
    writer = Detokenizer(
        renderer, ChatParameters(tools=ToolUse((STOP,)), **parameters), told.append
    )
    for token in renderer.encode_text(text):
        if not writer.token(0, token, TokenScore(-0.5, ())):
            break
    writer.end(0, "stop")
    return told


def said(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def spelled(deltas: list[Delta]) -> str:
    logprobs: list[TokenLogprob] = [one for delta in deltas for one in delta.logprobs]
    return b"".join(one.bytes or b"" for one in logprobs).decode()


def called(deltas: list[Delta]) -> list[tuple[int, str | None]]:
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert {piece.arguments for piece in pieces} <= {"", "{", "}", "{}"}
    return [(piece.index, piece.name) for piece in pieces if piece.name]


def test_words_before_calls_are_told_as_words(renderer: Renderer) -> None:
    deltas = written(renderer, spoken("Let me look.\nA moment.", [CALL, CALL]))
    assert said(deltas) == spelled(deltas) == "Let me look.\nA moment."
    assert called(deltas) == [(0, "stop_it"), (1, "stop_it")]
    first_call = next(n for n, delta in enumerate(deltas) if delta.tool_calls)
    assert not any(delta.text for delta in deltas[first_call:])
    assert deltas[-1].finish_reason == "tool_calls"


def test_a_call_alone_has_no_words(renderer: Renderer) -> None:
    deltas = written(renderer, CALL)
    assert said(deltas) == spelled(deltas) == ""
    assert called(deltas) == [(0, "stop_it")]


@pytest.mark.parametrize("text", ["Well", "a < b\n", "<tool>", "no\n<tool_cal", "\n\n"])
def test_what_only_begins_like_a_call_is_text(renderer: Renderer, text: str) -> None:
    deltas = written(renderer, text)
    assert said(deltas) == spelled(deltas) == text
    assert called(deltas) == []
    assert deltas[-1].finish_reason == "stop"


def test_words_stop_where_they_are_asked_to_and_calls_do_not(renderer: Renderer) -> None:
    assert said(written(renderer, "Let me look. A moment.", stop=(" A",))) == "Let me look."
    deltas = written(renderer, spoken("Let me look.", [CALL]), stop=("name", "<"))
    assert said(deltas) == "Let me look."
    assert called(deltas) == [(0, "stop_it")]
    assert said(written(renderer, "a < b", stop=("<",))) == "a "
