"""Replies constrained to a JSON schema or to the form of a tool call, with a random model.

A random model writes strings without end; so the schemas here leave it little room.
"""

import json
import queue
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from gathered import request_for
from tiny_model import chat_tiny

from emojitune.dataset.example import Message
from emojitune.dataset.tool_format import Tool
from emojitune.errors import EmojituneError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.decoding.grammar import GrammarCompiler
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.faults import Field, RequestFault
from emojitune.inference.types import Delta, Usage

SCHEMA = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["good", "bad"]},
        "number": {"type": "integer", "minimum": 1, "maximum": 9},
        "who": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    },
    "required": ["mood", "number", "who"],
    "additionalProperties": False,
}
MOOD = Tool("mood", {"type": "object", **{key: SCHEMA[key] for key in SCHEMA if key != "type"}})
STOP = Tool("stop_it", {"type": "object", "properties": {}, "additionalProperties": False})


@pytest.fixture
def model(tiny_base: Path) -> ChatModel:
    # Schemas and tools are in the prompt, and the tiny tokenizer makes a token of each letter.
    return chat_tiny(tiny_base, context_length=1024)


def ask(model: ChatModel, **parameters: Any) -> list[list[Delta]]:
    """The deltas of each reply."""
    events: queue.Queue[Delta | Usage | EmojituneError] = queue.Queue()
    request = request_for(Message("user", "hi"), **parameters)
    model.start(request, events.put)
    replies: list[list[Delta]] = [[] for _ in range(request.sampling.n)]
    while True:
        match events.get(timeout=20):
            case Delta() as delta:
                replies[delta.index].append(delta)
            case Usage():
                return replies
            case error:
                raise error


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def calls(deltas: list[Delta]) -> list[tuple[str, Any]]:
    """Names and arguments, put together from the pieces as a client does it."""
    found: list[list[str]] = []
    for piece in (piece for delta in deltas for piece in delta.tool_calls):
        if piece.name is not None:
            assert piece.index == len(found)
            found.append([piece.name, ""])
        found[piece.index][1] += piece.arguments
    return [(name, json.loads(arguments)) for name, arguments in found]


def test_replies_fit_their_schema(model: ChatModel) -> None:
    replies = ask(model, json_schema=SCHEMA, n=6, temperature=2.0, seed=1, max_tokens=80)
    found = [json.loads(text(deltas)) for deltas in replies]
    for reply in found:
        jsonschema.validate(reply, SCHEMA)
    assert len({str(reply) for reply in found}) > 1, "the schema leaves a choice"
    assert {deltas[-1].finish_reason for deltas in replies} == {"stop"}


def test_json_cut_by_max_tokens_ends_with_length(model: ChatModel) -> None:
    [deltas] = ask(model, json_schema=SCHEMA, temperature=0.0, max_tokens=5)
    assert deltas[-1].finish_reason == "length"
    assert text(deltas).startswith("{")


def test_json_complete_with_the_last_token_ends_with_stop(model: ChatModel) -> None:
    schema = {"const": 7}
    [deltas] = ask(model, json_schema=schema, temperature=0.0, max_tokens=1)
    assert (text(deltas), deltas[-1].finish_reason) == ("7", "stop")


def test_any_object_is_json(model: ChatModel) -> None:
    [deltas] = ask(
        model, json_schema={"type": "object"}, temperature=0.0, max_tokens=60,
        logit_bias={model._renderer.encode_text("}")[0]: 100},
    )  # fmt: skip
    assert (json.loads(text(deltas)), deltas[-1].finish_reason) == ({}, "stop")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": "array", "uniqueItems": True}, 'Unimplemented keys: ["uniqueItems"]'),
        ({"type": "string", "pattern": "("}, "pattern '(': unclosed group"),
        ({"$ref": "http://example.com/schema"}, "http://example.com/schema"),
        ({"type": "integer", "minimum": 5, "maximum": 2}, "Unsatisfiable"),
        ({"properties": 5}, "properties must be an object"),
        ({"type": "integer", "multipleOf": 10**6}, "take too long"),
        ({"properties": {n: {"multipleOf": 999} for n in "abcdefghijk"}}, "add up to 10989"),
        ({"type": "number", "multipleOf": 123.456}, "add up to 123456"),
    ],
)
def test_a_strict_schema_that_cannot_be_enforced_is_refused_with_the_reason(
    model: ChatModel, schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestFault) as caught:
        ask(model, json_schema=schema, strict=True)
    assert words in caught.value.message
    assert (caught.value.field, caught.value.index) == (Field.SCHEMA, None)
    with pytest.raises(RequestFault) as caught:
        ask(model, tools=ToolUse((STOP, Tool("f", schema, strict=True))))
    assert words in caught.value.message
    assert "function 'f'" in caught.value.message
    assert (caught.value.field, caught.value.index) == (Field.TOOL_PARAMETERS, 1)


def test_a_required_call_is_made_and_fits_its_parameters(model: ChatModel) -> None:
    replies = ask(
        model, tools=ToolUse((MOOD, STOP), "required", parallel=False), n=8, seed=3,
        temperature=2.0, max_tokens=100,
    )  # fmt: skip
    made = [call for deltas in replies for call in calls(deltas)]
    assert len(made) == 8
    assert {name for name, _ in made} == {"mood", "stop_it"}
    for name, arguments in made:
        jsonschema.validate(arguments, (MOOD if name == "mood" else STOP).parameters)
    assert all(text(deltas) == "" for deltas in replies)
    assert {deltas[-1].finish_reason for deltas in replies} == {"tool_calls"}


def test_a_named_call_is_made_once_and_ends_with_stop(model: ChatModel) -> None:
    [deltas] = ask(model, tools=ToolUse((STOP,), "named"), temperature=0.0)
    assert calls(deltas) == [("stop_it", {})]
    assert deltas[-1].finish_reason == "stop"


def test_a_reply_calls_several_times_only_in_parallel(
    model: ChatModel,
) -> None:
    newline = {model._renderer.encode_text("\n")[0]: 100.0}
    several = ToolUse((STOP,), "required")
    [deltas] = ask(model, tools=several, temperature=0.0, logit_bias=newline, max_tokens=130)
    begun = [piece.index for delta in deltas for piece in delta.tool_calls if piece.name]
    assert begun == [0, 1]
    assert deltas[-1].finish_reason == "length"
    alone = ToolUse((STOP,), "required", parallel=False)
    [deltas] = ask(model, tools=alone, temperature=0.0, logit_bias=newline, max_tokens=130)
    assert calls(deltas) == [("stop_it", {})]


def allowed_after(model: ChatModel, use: ToolUse, written: str) -> set[int]:
    """The tokens that may follow a reply's beginning."""
    renderer = model._renderer
    guide = GrammarCompiler(renderer.tokenizer, renderer.stop_ids).compile(None, use)()
    for token in renderer.encode_text(written):
        assert bool(guide.allowed(400)[token])
        guide.advance(token)
    return set(guide.allowed(400).nonzero().flatten().tolist())


def test_automatic_choice_allows_an_answer_or_a_call(model: ChatModel) -> None:
    [end], use = model._renderer.stop_ids, ToolUse((STOP,))
    after_text = allowed_after(model, use, "<table>")
    assert len(after_text) > 200
    assert end in after_text
    assert end in allowed_after(model, use, "")
    assert end in allowed_after(model, use, "Let me look. <tool")
    for begun in ("<tool_call>", "Let me look.\n<tool_call>"):
        allowed = allowed_after(model, use, begun)
        assert {model._renderer.decode([token])[0] for token in allowed} == {"{"}
    required = allowed_after(model, ToolUse((STOP,), "required"), "")
    assert {model._renderer.decode([token])[0] for token in required} == {"<"}


def test_special_tokens_are_never_part_of_a_text(model: ChatModel) -> None:
    special = set(model._renderer.tokenizer.all_special_ids) | {0, 1, 2}
    allowed = allowed_after(model, ToolUse((STOP,)), "Well")
    assert allowed & special == set(model._renderer.stop_ids)


def test_an_answer_in_place_of_a_call_is_sent_as_text(model: ChatModel) -> None:
    bias = {model._renderer.encode_text("<")[0]: -100.0}
    [deltas] = ask(model, tools=ToolUse((STOP,)), temperature=0.0, max_tokens=5, logit_bias=bias)
    assert text(deltas)
    assert not any(delta.tool_calls for delta in deltas)
    assert deltas[-1].finish_reason == "length"


def test_the_prompt_describes_tools_and_schema(model: ChatModel) -> None:
    events: queue.Queue[Any] = queue.Queue()
    plain = request_for(max_tokens=1)
    described = request_for(max_tokens=40, tools=ToolUse((STOP,), "named"))
    sizes = []
    for request in (plain, described):
        model.start(request, events.put)
        while not isinstance(item := events.get(timeout=20), Usage):
            assert not isinstance(item, Exception), item
        sizes.append(item.prompt_tokens)
    assert sizes[1] > sizes[0] + 20


def test_log_probabilities_of_a_constrained_reply_are_the_models_own(model: ChatModel) -> None:
    parameters = {"temperature": 0.0, "top_logprobs": 1, "max_tokens": 80}
    [deltas] = ask(model, json_schema=SCHEMA, **parameters)
    logprobs = [logprob for delta in deltas for logprob in delta.logprobs]
    assert b"".join(logprob.bytes or b"" for logprob in logprobs).decode() == text(deltas)
    assert any(logprob.logprob < logprob.top[0].logprob for logprob in logprobs), (
        "the model alone would have written something else"
    )
