"""Chunks of a chat completion, which are built without validation, beside OpenAI's own type."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from emojitune.errors import EmojituneError
from emojitune.inference.types import Alternative, Delta, TokenLogprob, ToolCallDelta, Usage
from emojitune.server.chat.assembler import ChatAssembler
from emojitune.server.chat.request import ChatRequest

USAGE = Usage(prompt_tokens=20, completion_tokens=9, cached_tokens=16)
LOGPROB = TokenLogprob("é", b"\xc3\xa9", -0.5, (TokenLogprob("<s>", None, float("-inf")),))
TOOL = {"type": "function", "function": {"name": "weather"}}

TEXT = [Delta(0, "(par"), Delta(0, "ty)", "stop")]
CALLS = [
    Delta(0, "Let me look."),
    Delta(0, "", tool_calls=(ToolCallDelta(0, "", "weather"), ToolCallDelta(0, "{"))),
    Delta(0, "", tool_calls=(ToolCallDelta(0, "}"), ToolCallDelta(1, "{}", "weather"))),
    Delta(0, "", "tool_calls"),
]
REPLIES: list[tuple[dict[str, Any], list[Delta]]] = [
    ({}, TEXT),
    ({}, [Delta(0, "", "length")]),
    ({"stream_options": {"include_usage": True}}, TEXT),
    ({"logprobs": True, "top_logprobs": 1}, [Delta(0, "é", "stop", logprobs=(LOGPROB,))]),
    ({"n": 2}, [Delta(1, "a", "stop"), Delta(0, "b"), Delta(0, "c", "length")]),
    ({"alternatives": 1}, [Delta(0, "a", "stop", (Alternative("a", -0.5, 0.75),))]),
    ({"tools": [TOOL]}, CALLS),
    ({"functions": [{"name": "weather"}]}, CALLS[:2] + CALLS[-1:]),
]


def assembler(options: dict[str, Any]) -> ChatAssembler:
    body = {
        "model": "gpt-3.5-turbo",
        "messages": [{"role": "user", "content": "Hello!"}],
        "stream": True,
        **options,
    }
    return ChatAssembler(ChatRequest.model_validate(body))


def payloads(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    texts = [frame.decode() for frame in frames]
    assert all(text.startswith("data: ") and text.endswith("\n\n") for text in texts)
    return [json.loads(text[6:]) for text in texts if text != "data: [DONE]\n\n"]


@pytest.mark.parametrize(("options", "deltas"), REPLIES)
def test_each_chunk_is_what_openais_type_would_send(
    options: dict[str, Any], deltas: list[Delta]
) -> None:
    streamed = assembler(options)
    frames = list(streamed.start_events())
    for delta in deltas:
        frames += streamed.add(delta)
    ending = streamed.finish(USAGE)
    assert ending.result is not None
    frames += ending.frames
    assert frames[-1] == b"data: [DONE]\n\n"
    chunks = payloads(frames)
    assert len(chunks) > len(deltas)
    for chunk in chunks:
        sent = ChatCompletionChunk.model_validate(chunk, strict=True).model_dump(exclude_unset=True)
        assert json.dumps(chunk) == json.dumps(sent), "the same keys in the same order"
    ChatCompletion.model_validate(ending.result, strict=True)


@pytest.mark.parametrize(("options", "deltas"), REPLIES)
def test_a_completion_is_the_sum_of_its_chunks(
    options: dict[str, Any], deltas: list[Delta]
) -> None:
    """Even where the chunks are not read, as in a reply that is not streamed."""
    streamed, complete = assembler(options), assembler(options)
    chunks = [chunk for delta in deltas for chunk in payloads(streamed.add(delta))]
    for delta in deltas:
        complete.add(delta)
    result = complete.finish(USAGE).result
    assert result is not None
    for choice in result["choices"]:
        parts = [
            part
            for chunk in chunks
            for part in chunk["choices"]
            if part["index"] == choice["index"]
        ]
        text = "".join(part["delta"].get("content") or "" for part in parts)
        assert text == (choice["message"]["content"] or "")
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        calls = [call for part in parts for call in part["delta"].get("tool_calls", ())]
        for index, made in enumerate(choice["message"].get("tool_calls", ())):
            pieces = [call["function"]["arguments"] for call in calls if call["index"] == index]
            assert "".join(pieces) == made["function"]["arguments"]


def test_a_failed_reply_leaves_an_error_and_no_completion() -> None:
    ending = assembler({}).fail(EmojituneError("The engine has stopped."))
    assert ending.result is None
    (frame,) = payloads(ending.frames)
    assert frame["error"]["message"] == "The engine has stopped."
