"""Events of a response's stream, which are built without validation, beside OpenAI's own types."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from emojitune.errors import EmojituneError
from emojitune.inference.types import Delta, TokenLogprob, ToolCallDelta, Usage
from emojitune.server.responses.assembler import ResponseAssembler
from emojitune.server.responses.request import ResponseRequest

EVENTS: TypeAdapter[BaseModel] = TypeAdapter(ResponseStreamEvent)
USAGE = Usage(prompt_tokens=20, completion_tokens=9, cached_tokens=16)
LOGPROB = TokenLogprob("é", b"\xc3\xa9", -0.5, (TokenLogprob("<s>", None, float("-inf")),))

TEXT = [Delta(0, "(par"), Delta(0, "ty)", "stop")]
CALLS = [
    Delta(0, "Let me look."),
    Delta(0, "", tool_calls=(ToolCallDelta(0, "", "weather"), ToolCallDelta(0, "{"))),
    Delta(0, "", tool_calls=(ToolCallDelta(0, "}"), ToolCallDelta(1, "{}", "weather"))),
    Delta(0, "", "tool_calls"),
]
REPLIES = [
    TEXT,
    [Delta(0, "", "stop")],
    [Delta(0, "(par", "length")],
    [Delta(0, "é", "stop", logprobs=(LOGPROB,))],
    CALLS,
    [*CALLS[:2], Delta(0, "", "length")],
]


def assembler() -> ResponseAssembler:
    tools = [{"type": "function", "name": "weather"}]
    body = {"model": "gpt-3.5-turbo", "input": "Hello!", "stream": True, "tools": tools}
    return ResponseAssembler(ResponseRequest.model_validate(body))


def check(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events of a stream, each of them as its type would be sent."""
    events = []
    for number, frame in enumerate(frames):
        head, data = frame.decode().removesuffix("\n\n").split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert head == f"event: {event['type']}"
        assert event["sequence_number"] == number
        sent = EVENTS.validate_python(event, strict=True)
        assert sent.model_dump(by_alias=True, exclude_unset=True) == event
        events.append(event)
    return events


@pytest.mark.parametrize("deltas", REPLIES)
def test_each_event_is_what_openais_type_would_send(deltas: list[Delta]) -> None:
    streamed = assembler()
    frames = list(streamed.start_events())
    for delta in deltas:
        frames += streamed.add(delta)
    ending = streamed.finish(USAGE)
    assert ending.result is not None
    events = check([*frames, *ending.frames])
    assert events[-1]["response"] == ending.result
    Response.model_validate(ending.result)


@pytest.mark.parametrize("deltas", REPLIES)
def test_a_response_is_the_same_whether_or_not_its_events_are_read(deltas: list[Delta]) -> None:
    streamed, complete = assembler(), assembler()
    for delta in deltas:
        list(streamed.add(delta))
        complete.add(delta)
    first, second = streamed.finish(USAGE).result, complete.finish(USAGE).result
    assert first is not None
    assert second is not None
    assert [without_ids(item) for item in first["output"]] == [
        without_ids(item) for item in second["output"]
    ]
    assert (first["status"], first["usage"]) == (second["status"], second["usage"])


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key not in ("id", "call_id")}


def test_a_failed_response_follows_its_error() -> None:
    streamed = assembler()
    frames = [*streamed.start_events(), *streamed.add(Delta(0, "(par"))]
    ending = streamed.fail(EmojituneError("The engine has stopped."))
    *_, error, failed = check([*frames, *ending.frames])
    assert (error["type"], error["message"]) == ("error", "The engine has stopped.")
    assert failed["type"] == "response.failed"
    assert failed["response"] == ending.result
