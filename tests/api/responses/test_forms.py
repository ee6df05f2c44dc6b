"""Responses through the official SDK on a real, tiny model: formats, tools, log-probabilities.

What a random model says means nothing, but its form must hold.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from fakes import FakeDispatcher
from openai import AsyncOpenAI, BadRequestError, OpenAI, pydantic_function_tool
from pydantic import BaseModel
from servers import KEY, serving
from tiny_model import chat_tiny

from emojitune.server.app import create_app
from emojitune.settings import Settings

MODEL = "gpt-3.5-turbo"
ASK = "Some json, please."


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    sure: bool


MOOD: Any = {
    "type": "function",
    "name": "mood",
    "description": "Notes a mood.",
    "parameters": {**Mood.model_json_schema(), "additionalProperties": False},
    "strict": True,
}
NOW: Any = {"type": "function", "name": "now", "parameters": None, "strict": False}
CALL: dict[str, Any] = {
    "model": MODEL, "input": ASK, "tools": [MOOD], "tool_choice": "required",
    "parallel_tool_calls": False, "temperature": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def url(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("forms")
    settings = Settings(home=folder / "home", cache=folder / "cache", api_key=KEY)
    model = chat_tiny(tiny_base, context_length=2048)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=lambda *_: model)
    with serving(app) as address:
        yield address


def events_of(http: httpx2.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = http.post("/responses", json={**body, "stream": True})
    assert response.status_code == 200, response.text
    frames = response.text.removesuffix("\n\n").split("\n\n")
    return [json.loads(frame.split("data: ", 1)[1]) for frame in frames]


def test_a_reply_fits_a_json_schema(client: OpenAI) -> None:
    for _ in range(3):
        response = client.responses.parse(
            model=MODEL, input=ASK, text_format=Mood, temperature=2, max_output_tokens=100
        )
        assert response.status == "completed"
        assert response.output_parsed == Mood.model_validate_json(response.output_text)


def test_a_streamed_reply_is_parsed_by_the_helper(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=ASK, text_format=Mood, temperature=0) as stream:
        told = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Mood)
    assert "".join(told) == final.output_text


def test_any_json_object(client: OpenAI) -> None:
    for _ in range(4):
        response = client.responses.create(
            model=MODEL, input=ASK, text={"format": {"type": "json_object"}}, temperature=2,
            max_output_tokens=100,
        )  # fmt: skip
        assert response.output_text.startswith("{")
        if response.status == "completed":
            assert isinstance(json.loads(response.output_text), dict)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "mood"},
        {"type": "allowed_tools", "mode": "required", "tools": [
            {"type": "function", "name": "mood"}]},
    ],
)  # fmt: skip
def test_a_required_call(client: OpenAI, choice: Any) -> None:
    response = client.responses.create(**{**CALL, "tools": [NOW, MOOD], "tool_choice": choice})
    if choice == "required":  # either of them
        assert {item.type for item in response.output} == {"function_call"}
        return
    [call] = response.output
    shown = call.to_dict()
    assert str(shown.pop("id")).startswith("fc_")
    assert str(shown.pop("call_id")).startswith("call_")
    Mood.model_validate_json(str(shown.pop("arguments")))
    assert shown == {"type": "function_call", "status": "completed", "name": "mood"}
    fields = response.to_dict()
    assert (response.status, response.output_text) == ("completed", "")
    assert fields["tool_choice"] == choice
    assert fields["parallel_tool_calls"] is False
    assert fields["tools"] == [{**NOW, "description": None}, MOOD]
    assert client.responses.retrieve(response.id) == response


def test_the_events_of_a_call(http: httpx2.Client) -> None:
    created, in_progress, added, *pieces, done, item_done, completed = events_of(http, CALL)
    assert [event["type"] for event in (created, in_progress)] == [
        "response.created", "response.in_progress"
    ]  # fmt: skip
    item = added["item"]
    opened = {"type": "function_call", "status": "in_progress", "name": "mood", "arguments": ""}
    assert item == {"id": item["id"], "call_id": item["call_id"], **opened}
    assert (added["type"], added["output_index"]) == ("response.output_item.added", 0)
    place = {"item_id": item["id"], "output_index": 0}
    for number, piece in enumerate(pieces, 3):
        assert piece == {
            "type": "response.function_call_arguments.delta",
            "sequence_number": number,
            **place,
            "delta": piece["delta"],
        }
    arguments = "".join(piece["delta"] for piece in pieces)
    Mood.model_validate_json(arguments)
    assert done == {
        "type": "response.function_call_arguments.done",
        "sequence_number": 3 + len(pieces),
        **place,
        "name": "mood",
        "arguments": arguments,
    }
    whole = {**item, "status": "completed", "arguments": arguments}
    assert (item_done["type"], item_done["item"]) == ("response.output_item.done", whole)
    assert completed["type"] == "response.completed"
    assert completed["response"]["output"] == [whole]
    stored = http.get(f"/responses/{completed['response']['id']}").json()
    assert stored == completed["response"]


def test_several_calls_are_items_of_their_own(http: httpx2.Client) -> None:
    asked = {**CALL, "parallel_tool_calls": True, "temperature": 1, "tools": [MOOD, NOW]}
    for _ in range(20):
        events = events_of(http, {**asked, "max_output_tokens": 300})
        output = events[-1]["response"]["output"]
        if len(output) > 1:
            break
    else:
        raise AssertionError("20 replies without a second call")
    kinds = [event for event in events if event["type"].startswith("response.output_item.")]
    assert [(event["type"].rpartition(".")[2], event["output_index"]) for event in kinds] == [
        (what, index) for index in range(len(output)) for what in ("added", "done")
    ]
    assert [event["item"] for event in kinds[1::2]] == output
    assert len({item["call_id"] for item in output}) == len(output)


def test_a_call_that_is_cut_off_is_incomplete(client: OpenAI) -> None:
    response = client.responses.create(
        **{**CALL, "tool_choice": {"type": "function", "name": "mood"}, "max_output_tokens": 44}
    )
    assert response.status == "incomplete"
    [call] = response.output
    assert (call.type, call.to_dict()["status"]) == ("function_call", "incomplete")


def test_a_conversation_continues_after_calls_and_their_outputs(client: OpenAI) -> None:
    first = client.responses.create(**CALL)
    [call] = first.output
    assert call.type == "function_call"
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "noted"}
    plain: Any = {"model": MODEL, "max_output_tokens": 16, "temperature": 0}
    continued = client.responses.create(**plain, previous_response_id=first.id, input=[output])
    sent_back = client.responses.create(
        **plain, input=[{"role": "user", "content": ASK}, call, output]
    )
    by_id = client.responses.create(
        **plain,
        input=[{"role": "user", "content": ASK}, {"type": "item_reference", "id": call.id}, output],
    )
    assert continued.output_text == sent_back.output_text == by_id.output_text
    assert continued.usage
    assert sent_back.usage
    assert continued.usage.input_tokens == sent_back.usage.input_tokens
    items = client.responses.input_items.list(continued.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"]
    shown = items[2].to_dict()
    assert str(shown.pop("id")).startswith("fco_")
    assert shown == {**output, "status": "completed"}
    parts: Any = {**output, "output": [{"type": "input_text", "text": part} for part in ("a", "b")]}
    listed = client.responses.create(**plain, previous_response_id=first.id, input=[parts])
    [last, *_] = client.responses.input_items.list(listed.id).data
    assert last.to_dict()["output"] == parts["output"]


def test_a_call_without_its_output_is_refused(client: OpenAI) -> None:
    first = client.responses.create(**CALL)
    [call] = first.output
    with pytest.raises(BadRequestError) as caught:
        client.responses.create(model=MODEL, input="And?", previous_response_id=first.id)
    assert call.type == "function_call"
    assert f"No tool output found for function call {call.call_id}." in caught.value.message


def test_the_model_reads_the_same_in_chat_completions_and_responses(client: OpenAI) -> None:
    called: Any = {"name": "mood", "arguments": "{}"}
    tool: Any = {"type": "function", "function": {k: v for k, v in MOOD.items() if k != "type"}}
    completion = client.chat.completions.create(
        model=MODEL, tools=[tool], max_tokens=16, messages=[
            {"role": "user", "content": ASK},
            {"role": "assistant", "content": "So.", "tool_calls": [
                {"id": f"call_{n}", "type": "function", "function": called} for n in (1, 2)]},
            {"role": "tool", "tool_call_id": "call_1", "content": "1"},
            {"role": "tool", "tool_call_id": "call_2", "content": "2"},
        ],
    )  # fmt: skip
    items: Any = [
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": "So."},
        {"type": "function_call", "call_id": "call_1", **called},
        {"type": "function_call", "call_id": "call_2", **called},
        {"type": "function_call_output", "call_id": "call_1", "output": "1"},
        {"type": "function_call_output", "call_id": "call_2", "output": "2"},
    ]
    counted = client.responses.input_tokens.count(model=MODEL, input=items, tools=[MOOD])
    assert completion.usage
    assert counted.input_tokens == completion.usage.prompt_tokens


def test_tool_choice_none_leaves_text(client: OpenAI) -> None:
    response = client.responses.create(
        **{**CALL, "tool_choice": "none", "max_output_tokens": 16},
        extra_body={"labels": ["(party)", "(cake)"]},
    )
    assert response.output_text in ("(party)", "(cake)")


def test_the_helpers_parse_calls(client: OpenAI) -> None:
    function = pydantic_function_tool(Mood)["function"]
    tool: Any = {"type": "function", **function}
    parsed = client.responses.parse(**{**CALL, "tools": [tool]})
    [call] = parsed.output
    assert call.type == "function_call"
    assert set(call.parsed_arguments or ()) == {"mood", "sure"}
    with client.responses.stream(**{**CALL, "tools": [tool]}) as stream:
        [streamed] = stream.get_final_response().output
    assert streamed.type == "function_call"
    assert streamed.arguments == call.arguments
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "1"}
    again = client.responses.create(model=MODEL, input=[call, output], max_output_tokens=16)
    assert again.usage


async def _call_async(url: str) -> Any:
    async with (
        AsyncOpenAI(
            base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client,
        client.responses.stream(**CALL) as stream,
    ):
        return await stream.get_final_response()


def test_the_asynchronous_client_calls_too(url: str) -> None:
    [call] = asyncio.run(_call_async(url)).output
    Mood.model_validate_json(call.arguments)


@pytest.mark.parametrize("labels", [None, ["(party)", "(cake)"]])
def test_log_probabilities_spell_the_reply(client: OpenAI, labels: Any) -> None:
    response = client.responses.create(
        model=MODEL, input=ASK, include=["message.output_text.logprobs"], top_logprobs=3,
        max_output_tokens=20, temperature=0, extra_body={"labels": labels},
    )  # fmt: skip
    assert response.top_logprobs == 3
    part: Any = response.output[0].to_dict()["content"]
    tokens = part[0]["logprobs"]
    spelled = b"".join(bytes(token["bytes"]) for token in tokens)
    assert spelled.decode(errors="replace") == response.output_text
    assert response.usage
    assert len(tokens) == response.usage.output_tokens
    for token in tokens:
        assert set(token) == {"token", "bytes", "logprob", "top_logprobs"}
        assert -9999.0 <= token["logprob"] <= 0.0
        assert len(token["top_logprobs"]) == 3
        assert all(set(top) == {"token", "bytes", "logprob"} for top in token["top_logprobs"])
    again = client.responses.retrieve(response.id, include=["message.output_text.logprobs"])
    assert again == response


def test_streamed_log_probabilities_equal_those_of_the_complete_reply(http: httpx2.Client) -> None:
    asked = {
        "model": MODEL, "input": ASK, "max_output_tokens": 20, "temperature": 0,
        "include": ["message.output_text.logprobs"],
    }  # fmt: skip
    events = events_of(http, asked)
    told = [
        token
        for event in events
        if event["type"] == "response.output_text.delta"
        for token in event["logprobs"]
    ]
    [text_done] = [event for event in events if event["type"] == "response.output_text.done"]
    [part_done] = [event for event in events if event["type"] == "response.content_part.done"]
    [whole] = events[-1]["response"]["output"]
    assert told
    assert all(token["top_logprobs"] == [] for token in told)
    assert text_done["logprobs"] == part_done["part"]["logprobs"] == told
    assert whole["content"][0]["logprobs"] == told


BAD_SCHEMA: Any = {"type": "object", "properties": {"x": {"type": "wat"}}}


@pytest.mark.parametrize(
    ("changes", "param", "code", "words"),
    [
        ({"text": {"format": {
            "type": "json_schema", "name": "x", "schema": BAD_SCHEMA, "strict": True}}},
         "text.format.schema", "invalid_json_schema", "Invalid schema for response_format"),
        ({"tools": [{**MOOD, "parameters": BAD_SCHEMA}]}, "tools[0].parameters",
         "invalid_function_parameters", "Invalid schema for function 'mood'"),
        ({"labels": ["a", "b"], "tools": [MOOD]}, "tools", "unsupported_parameter",
         "'tools' contradicts a reply that is constrained to a set of labels"),
        ({"labels": ["a", "b"], "text": {"format": {"type": "json_object"}}}, "text.format",
         "unsupported_parameter", "'text.format' contradicts"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_faults_of_the_model_are_spelled_in_the_words_of_responses(
    http: httpx2.Client,
    changes: dict[str, Any],
    param: str,
    code: str | None,
    words: str,
    stream: bool,
) -> None:
    response = http.post(
        "/responses", json={"model": MODEL, "input": ASK, "stream": stream, **changes}
    )
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]
