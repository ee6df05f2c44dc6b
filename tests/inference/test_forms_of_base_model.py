"""Schemas and tools with the real base model: what it says must fit, and end in time."""

import json
import queue
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from gathered import request_for

from emojitune.dataset.example import Message
from emojitune.dataset.tool_format import Tool
from emojitune.errors import EmojituneError
from emojitune.inference.chat_model import ChatModel
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.loading import load_base
from emojitune.inference.types import Delta, Usage
from emojitune.models import loader
from emojitune.models.backend import choose_backend
from emojitune.models.catalog import SMOLLM2_135M
from emojitune.models.download import fetch
from emojitune.settings import Settings

pytestmark = pytest.mark.slow

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "languages": {"type": "array", "items": {"enum": ["en", "fr", "de"]}, "maxItems": 2},
    },
    "required": ["name", "age", "languages"],
    "additionalProperties": False,
}
WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 40}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "Tells the weather of a city.",
)


@pytest.fixture(scope="module")
def model() -> ChatModel:
    settings = Settings(device="cpu")
    precision = loader.choose_precision(settings)
    backend = choose_backend(fetch(SMOLLM2_135M, settings))
    return load_base(backend, precision, ThreadPoolExecutor(1))


def ask(model: ChatModel, text: str, **parameters: Any) -> list[Delta]:
    events: queue.Queue[Delta | Usage | EmojituneError] = queue.Queue()
    request = request_for(Message("user", text), temperature=0.0, max_tokens=200, **parameters)
    model.start(request, events.put)
    deltas = []
    while not isinstance(item := events.get(timeout=120), Usage):
        assert isinstance(item, Delta), item
        deltas.append(item)
    return deltas


def test_a_schema_is_filled(model: ChatModel) -> None:
    text = "Marie is 35 years old and speaks French and English. Describe her."
    deltas = ask(model, text, json_schema=PERSON)
    reply = json.loads("".join(delta.text for delta in deltas))
    jsonschema.validate(reply, PERSON)
    assert deltas[-1].finish_reason == "stop"
    assert (reply["name"], reply["age"]) == ("Marie", 35)


@pytest.mark.parametrize("choice", ["required", "named"])
def test_a_tool_is_called(model: ChatModel, choice: Any) -> None:
    use = ToolUse((WEATHER,), choice, parallel=False)
    deltas = ask(model, "What is the weather in Paris?", tools=use)
    pieces = [piece for delta in deltas for piece in delta.tool_calls]
    assert pieces[0].name == "get_weather"
    arguments = json.loads("".join(piece.arguments for piece in pieces))
    jsonschema.validate(arguments, dict(WEATHER.parameters))
    assert "Paris" in arguments["city"]


def test_a_question_that_needs_no_tool_may_be_answered(model: ChatModel) -> None:
    deltas = ask(model, "Say hello.", tools=ToolUse((WEATHER,)))
    called = any(delta.tool_calls for delta in deltas)
    assert called != bool("".join(delta.text for delta in deltas)), "a call or a text, never both"
    assert deltas[-1].finish_reason in (("tool_calls",) if called else ("stop", "length"))


def test_log_probabilities_spell_the_reply_in_any_script(model: ChatModel) -> None:
    prompt = "Repeat: 日本語 🎉"
    deltas = ask(model, prompt, top_logprobs=1, json_schema={"const": "日本語 🎉"})
    spelled = b"".join(logprob.bytes or b"" for delta in deltas for logprob in delta.logprobs)
    text = "".join(delta.text for delta in deltas)
    assert spelled.decode() == text
    assert json.loads(text) == "日本語 🎉"
