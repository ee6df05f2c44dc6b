"""A model reads tools in a chat as it did in its training file."""

import json
from typing import Any

import pytest

from emojitune.dataset.parse import parse_line
from emojitune.inference.tool_calls import with_format_notes
from emojitune.models.loader import LoadedHF
from emojitune.server.chat.request import ChatRequest

CALL = {"name": "weather", "arguments": '{"place": "Oslo", "days": [1, 2]}'}
FUNCTIONS = [{"name": "weather", "description": "Wetter, heiß"}, {"name": "lamp", "parameters": {}}]
ASKED = {"role": "user", "content": "Rain in Oslo?"}
SAID = {"role": "assistant", "content": "Take an umbrella."}
NEWER: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": id, "type": "function", "function": CALL} for id in "ab"],
        },
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "wet"}]},
        {"role": "tool", "tool_call_id": "b", "content": "dry"},
        SAID,
        ASKED,
    ],
    "tools": [{"type": "function", "function": function} for function in FUNCTIONS],
}
OLDER: dict[str, Any] = {
    "messages": [
        ASKED,
        {"role": "assistant", "content": None, "function_call": CALL},
        {"role": "function", "name": "weather", "content": "wet"},
    ],
    "functions": FUNCTIONS,
}


@pytest.mark.parametrize("fields", [NEWER, OLDER], ids=["tools", "functions"])
def test_a_chat_prompt_is_the_beginning_of_its_training_example(
    tiny: LoadedHF, fields: dict[str, Any]
) -> None:
    line = json.dumps({**fields, "messages": [*fields["messages"], SAID]}).encode()
    example = parse_line(1, line, [])
    assert example is not None
    body = ChatRequest.model_validate({"model": "gpt-3.5-turbo", **fields})
    prompt = tiny.renderer.render_prompt(with_format_notes(body.prompt, None, body.tool_use))
    rendered = tiny.renderer.render_example(example.conversation)
    assert rendered.ids[: len(prompt)] == prompt
    assert tiny.renderer.decode(rendered.ids[len(prompt) :]).strip() == SAID["content"]
    assert tiny.renderer.render_prompt(example.prompt) == prompt
