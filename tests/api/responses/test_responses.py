import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pydantic
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from servers import KEY, serving

from emojitune.dataset.example import Message
from emojitune.inference.types import InferenceRequest
from emojitune.server.app import create_app
from emojitune.settings import Settings

ASK = "I just passed my driving test!"
MODEL = "gpt-3.5-turbo"
REPLY_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


class Reply(pydantic.BaseModel):
    label: str


def events_of(http: httpx2.Client, **body: Any) -> list[dict[str, Any]]:
    """The raw events of a stream, whose framing is checked."""
    response = http.post("/responses", json={"model": MODEL, "input": ASK, "stream": True, **body})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    events = []
    for frame in response.text.removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def asked(server) -> InferenceRequest:
    request: InferenceRequest = server.chat_model.requests[-1]
    return request


def test_a_response_has_every_key(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input=ASK)
    assert response.output_text == "(party)"
    fields = response.to_dict()
    assert fields.pop("id").startswith("resp_")
    assert fields.pop("created_at") == pytest.approx(time.time(), abs=5)
    assert fields.pop("completed_at") == pytest.approx(time.time(), abs=5)
    assert fields["output"][0].pop("id").startswith("msg_")
    assert fields == {
        "object": "response",
        "status": "completed",
        "background": False,
        "conversation": None,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": "gpt-3.5-turbo-0125",
        "moderation": None,
        "output": [
            {
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "(party)", "annotations": [], "logprobs": []}
                ],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt": None,
        "prompt_cache_key": None,
        "prompt_cache_retention": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 20,
            "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 22,
        },
    }


def test_parameters_reach_the_model_and_are_echoed(client: OpenAI, server) -> None:
    response = client.responses.create(
        model=MODEL,
        instructions="Answer with emojis!",
        input=ASK,
        max_output_tokens=16,
        temperature=0,
        top_p=0.5,
        metadata={"a": "b"},
        user="me",
        safety_identifier="id",
        prompt_cache_key="key",
        parallel_tool_calls=False,
        extra_body={"decoding": "free"},
    )
    request = asked(server)
    messages, parameters = request.messages, request.sampling
    assert messages == (Message("system", "Answer with emojis!"), Message("user", ASK))
    assert (parameters.max_tokens, parameters.temperature, parameters.top_p) == (16, 0.0, 0.5)
    assert (request.decoding, parameters.n, request.json_schema) == ("free", 1, None)
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.0, 0.5, 16)
    assert (response.instructions, response.metadata) == ("Answer with emojis!", {"a": "b"})
    assert (response.user, response.safety_identifier) == ("me", "id")
    assert (response.prompt_cache_key, response.parallel_tool_calls) == ("key", False)


def test_labels_reach_the_model(client: OpenAI, server) -> None:
    client.responses.create(model=MODEL, input=ASK, extra_body={"labels": ["(a)", "(b)"]})
    assert asked(server).labels == ("(a)", "(b)")


def test_harmless_defaults_of_clients_are_accepted(http: httpx2.Client) -> None:
    body = {
        "model": MODEL,
        "input": ASK,
        "instructions": None,
        "previous_response_id": None,
        "max_output_tokens": None,
        "temperature": None,
        "tools": [],
        "tool_choice": "auto",
        "truncation": "disabled",
        "top_logprobs": 0,
        "background": False,
        "reasoning": {"effort": None, "summary": None},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "include": ["reasoning.encrypted_content"],
        "service_tier": "auto",
        "prompt_cache_retention": "24h",
        "max_tool_calls": 3,
        "conversation": None,
        "prompt": None,
        "moderation": None,
        "context_management": None,
        "metadata": None,
        "stream": False,
        "stream_options": None,
        "store": True,
        "user": None,
    }
    response = http.post("/responses", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["max_tool_calls"] == 3
    assert "user" not in response.json()


def test_items_in_every_form(client: OpenAI, server) -> None:
    client.responses.create(
        model=MODEL,
        input=[
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "input_text", "text": part} for part in "ab"]},
            {
                "type": "message",
                "id": "msg_mine",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "(cake)", "annotations": []}],
            },
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"type": "message", "role": "user", "content": "c"},
        ],
    )
    assert asked(server).messages == (
        Message("developer", "Be short."),
        Message("user", "ab"),
        Message("assistant", "(cake)"),
        Message("assistant", "No."),
        Message("user", "c"),
    )


def test_a_reply_may_be_sent_back(client: OpenAI, server) -> None:
    first = client.responses.create(model=MODEL, input=ASK)
    client.responses.create(
        model=MODEL, input=[{"role": "user", "content": ASK}, *first.output, *first.output[:0]]
    )
    assert asked(server).messages == (Message("user", ASK), Message("assistant", "(party)"))


def test_a_parsed_reply_may_be_sent_back(client: OpenAI, server) -> None:
    parsed = client.responses.parse(model=MODEL, input='say: {"label":"x"}', text_format=Reply)
    client.responses.create(model=MODEL, input=[*parsed.output, {"role": "user", "content": "c"}])
    assert asked(server).messages == (Message("assistant", '{"label":"x"}'), Message("user", "c"))


def test_a_stored_response_equals_the_one_that_was_sent(client: OpenAI) -> None:
    created = client.responses.create(model=MODEL, input=ASK, metadata={"a": "b"})
    assert client.responses.retrieve(created.id) == created
    client.responses.delete(created.id)
    for ask in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
        with pytest.raises(NotFoundError, match=f"Response with id '{created.id}' not found."):
            ask(created.id)


def test_a_deletion_is_confirmed(http: httpx2.Client) -> None:
    created = http.post("/responses", json={"model": MODEL, "input": ASK}).json()
    deleted = http.delete(f"/responses/{created['id']}")
    assert deleted.json() == {"id": created["id"], "object": "response.deleted", "deleted": True}


def test_an_unstored_response_is_not_found(client: OpenAI) -> None:
    created = client.responses.create(model=MODEL, input=ASK, store=False)
    assert created.to_dict()["store"] is False
    with pytest.raises(NotFoundError) as caught:
        client.responses.retrieve(created.id)
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(BadRequestError):
        client.responses.create(model=MODEL, input=ASK, previous_response_id=created.id)


def test_a_conversation_is_continued_without_its_instructions(client: OpenAI, server) -> None:
    first = client.responses.create(model=MODEL, input="one", instructions="Be short.")
    second = client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": "three"}],
        previous_response_id=second.id,
        instructions="Be long.",
    )
    assert asked(server).messages == (
        Message("system", "Be long."),
        Message("user", "one"),
        Message("assistant", "(party)"),
        Message("user", "two"),
        Message("assistant", "(party)"),
        Message("user", "three"),
    )


def test_a_conversation_outlives_its_first_response(client: OpenAI, server) -> None:
    first = client.responses.create(model=MODEL, input="one")
    second = client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
    client.responses.delete(first.id)
    client.responses.create(model=MODEL, input="three", previous_response_id=second.id)
    assert [message.content for message in asked(server).messages] == [
        "one", "(party)", "two", "(party)", "three"
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_previous_response_is_a_400(client: OpenAI, stream: bool) -> None:
    with pytest.raises(
        BadRequestError, match="Previous response with id 'resp_x' not found"
    ) as caught:
        client.responses.create(
            model=MODEL, input=ASK, previous_response_id="resp_x", stream=stream
        )
    assert caught.value.code == "previous_response_not_found"
    assert caught.value.param == "previous_response_id"


def test_a_continued_conversation_needs_no_input(client: OpenAI, server) -> None:
    first = client.responses.create(model=MODEL, input="one")
    client.responses.create(model=MODEL, previous_response_id=first.id)
    assert [message.content for message in asked(server).messages] == ["one", "(party)"]


def test_a_duplicate_item_is_refused(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=ASK)
    with pytest.raises(BadRequestError, match="Duplicate item found with id msg_"):
        client.responses.create(
            model=MODEL,
            input=[*first.output, {"role": "user", "content": "c"}],  # which it has anyway
            previous_response_id=first.id,
        )


@pytest.fixture
def long(client: OpenAI) -> Iterator[str]:
    """The id of a response to 25 items."""
    items = [{"role": "user", "content": str(number)} for number in range(25)]
    response = client.responses.create(model=MODEL, input=items)
    yield response.id
    client.responses.delete(response.id)


def texts(items: Any) -> list[str]:
    return [item.content[0].text for item in items]


def test_input_items_are_listed_newest_first(client: OpenAI, long: str) -> None:
    page = client.responses.input_items.list(long)
    assert texts(page.data) == [str(number) for number in range(24, 4, -1)]
    assert page.has_more
    fields = page.to_dict()
    assert (fields["first_id"], fields["last_id"]) == (page.data[0].id, page.data[-1].id)
    first = page.data[0].to_dict()
    assert str(first.pop("id")).startswith("msg_")
    assert first == {
        "type": "message",
        "role": "user",
        "status": "completed",
        "content": [{"type": "input_text", "text": "24"}],
    }
    everything = list(client.responses.input_items.list(long))
    assert texts(everything) == [str(number) for number in range(24, -1, -1)]
    assert len({item.id for item in everything}) == 25


@pytest.mark.parametrize("limit", [1, 7, 25, 100])
def test_input_items_page_in_ascending_order(client: OpenAI, long: str, limit: int) -> None:
    everything = client.responses.input_items.list(long, limit=limit, order="asc")
    assert texts(everything) == [str(number) for number in range(25)]


def test_the_page_after_the_last_item_is_empty(client: OpenAI, http: httpx2.Client, long) -> None:
    last = client.responses.input_items.list(long, order="asc", limit=100).data[-1].id
    page = http.get(f"/responses/{long}/input_items", params={"after": last, "order": "asc"})
    assert page.json() == {
        "object": "list", "data": [], "has_more": False, "first_id": "", "last_id": ""
    }  # fmt: skip


def test_input_items_are_the_entire_conversation(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="one", instructions="not an item")
    second = client.responses.create(model=MODEL, input="two", previous_response_id=first.id)
    listed = client.responses.input_items.list(second.id, order="asc").data
    assert texts(listed) == ["one", "(party)", "two"]
    assert listed[1].id == first.output[0].id
    assert listed[1].to_dict() == first.output[0].to_dict()


def test_ids_of_items_are_retained(client: OpenAI) -> None:
    item = {"type": "message", "id": "msg_mine", "role": "user", "content": "hi"}
    created = client.responses.create(model=MODEL, input=[item])
    assert [item.id for item in client.responses.input_items.list(created.id)] == ["msg_mine"]


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ({"limit": 0}, 400, "limit"),
        ({"limit": 101}, 400, "limit"),
        ({"limit": "many"}, 400, "limit"),
        ({"order": "up"}, 400, "order"),
        ({"after": "msg_unknown"}, 404, "after"),
        ({"include[]": "everything"}, 400, "include[][0]"),
    ],
)
def test_bad_queries_of_input_items(
    http: httpx2.Client, long: str, query: dict[str, Any], status: int, param: str
) -> None:
    response = http.get(f"/responses/{long}/input_items", params=query)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param


def test_input_items_of_an_unknown_response(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="Response with id 'resp_x' not found"):
        client.responses.input_items.list("resp_x")


def test_includes_are_accepted_where_nothing_is_hidden(client: OpenAI, long: str) -> None:
    include: Any = ["message.input_image.image_url", "message.output_text.logprobs"]
    assert client.responses.retrieve(long, include=include).id == long
    assert client.responses.input_items.list(long, include=include).data


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"stream": "true"}, "stream"),
        ({"starting_after": 3}, "starting_after"),
    ],
)
def test_an_ended_response_is_not_streamed_again(
    http: httpx2.Client, long: str, query: dict[str, Any], param: str
) -> None:
    response = http.get(f"/responses/{long}", params=query)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_only_background_responses_could_be_cancelled(client: OpenAI, long: str) -> None:
    with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(long)


def test_a_reply_that_is_cut_off_is_incomplete(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="never end", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.completed_at is None
    assert response.output[0].to_dict()["status"] == "incomplete"
    assert client.responses.retrieve(response.id).status == "incomplete"


def test_input_tokens_are_counted(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="one two")
    counted = client.responses.input_tokens.count(
        model=MODEL,
        input="three",
        instructions="Be short.",
        previous_response_id=first.id,
        tools=[],
        text={"format": {"type": "text"}},
    )
    assert counted.to_dict() == {"object": "response.input_tokens", "input_tokens": 6}
    assert client.responses.input_tokens.count(input="a b c").input_tokens == 3


def test_compaction_is_refused_with_an_explanation(http: httpx2.Client) -> None:
    response = http.post("/responses/compact", json={"model": MODEL, "input": ASK})
    assert response.status_code == 400
    assert "aren't compacted" in response.json()["error"]["message"]


def test_other_methods_are_not_allowed(http: httpx2.Client) -> None:
    assert http.get("/responses").status_code == 405
    assert http.post("/responses/resp_x").status_code == 405
    assert http.get("/responses/resp_x/cancel").status_code == 405


@pytest.mark.parametrize(
    ("changes", "param", "code", "words"),
    [
        ({"model": None}, "model", "missing_required_parameter", "'model'"),
        ({"input": None}, "input", "missing_required_parameter", "'input'"),
        ({"input": 7}, "input", "invalid_type",
         "expected a string or an array of objects, but got an integer instead"),
        ({"input": {"role": "user", "content": "x"}}, "input", "invalid_type", "an object"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content",
         "invalid_type", "expected a string or an array"),
        ({"input": []}, "input", "empty_array", "empty array"),
        ({"input": ["hi"]}, "input[0]", "invalid_type", "expected an object"),
        ({"input": [{"content": "x"}]}, "input[0].role", "missing_required_parameter", "role"),
        ({"input": [{"role": "user"}]}, "input[0].content",
         "missing_required_parameter", "'input[0].content'"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input[0].role",
         "invalid_value", "'user', 'assistant', 'system' or 'developer'"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
         "input", None, "No tool call found for function call output with call_id c."),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]},
         "input", None, "No tool output found for function call c."),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]},
         "input[0].arguments", "missing_required_parameter", "'input[0].arguments'"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": 5}]},
         "input[0].output", "invalid_type", "expected a string or an array of objects"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": [
            {"type": "input_image", "image_url": "http://x"}]}]},
         "input[0].output[0].type", "invalid_value", "'input_image'"),
        ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type",
         "invalid_value", "'function_call_output', 'item_reference', 'reasoning'"),
        ({"input": [{"type": "item_reference"}]}, "input[0].id",
         "missing_required_parameter", "'input[0].id'"),
        ({"input": [{"id": 5}]}, "input[0].id", "invalid_type", "expected a string"),
        ({"input": [{"type": "reasoning", "id": "rs_1"}]}, "input",
         "missing_required_parameter", "'input'"),
        ({"input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": "http://x"}]}]},
         "input[0].content[0].type", "invalid_value", "'input_image'"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
         "input[0].content[0].type", "invalid_value", "'input_file'"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
         "input[0].content[0].text", "missing_required_parameter", "content[0].text'"),
        ({"input": [{"role": "user", "content": "x", "colour": 1}]},
         "input[0].colour", "unknown_parameter", "Unknown parameter: 'input[0].colour'."),
        ({"instructions": 5}, "instructions", "invalid_type", "expected a string"),
        ({"max_output_tokens": 15}, "max_output_tokens",
         "integer_below_min_value", "Expected a value >= 16, but got 15"),
        ({"max_output_tokens": 16.5}, "max_output_tokens", "invalid_type", "an integer"),
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value", "<= 2, but got 2.1"),
        ({"temperature": -1}, "temperature", "decimal_below_min_value", ">= 0, but got -1"),
        ({"top_p": 1.1}, "top_p", "decimal_above_max_value", "<= 1, but got 1.1"),
        ({"stream": "yes"}, "stream", "invalid_type", "a boolean"),
        ({"store": 1}, "store", "invalid_type", "a boolean"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options",
         None, "only allowed when 'stream' is enabled"),
        ({"stream": True, "stream_options": {"include_usage": True}},
         "stream_options.include_usage", "unknown_parameter", "Unknown parameter"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type", "a string"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata",
         "object_above_max_length", "maximum length 16"),
        ({"include": ["everything"]}, "include[0]", "invalid_value", "'everything'"),
        ({"top_logprobs": 21}, "top_logprobs", "integer_above_max_value", "<= 20, but got 21"),
        ({"top_logprobs": -1}, "top_logprobs", "integer_below_min_value", ">= 0, but got -1"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type",
         "invalid_value", "'text', 'json_object' or 'json_schema'"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name",
         "missing_required_parameter", "'text.format.name'"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema",
         "missing_required_parameter", "'text.format.schema'"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}},
         "text.format.name", "invalid_value", "does not match pattern"),
        ({"text": {"format": {"type": "text", "name": "a"}}}, "text.format.name",
         "unknown_parameter", "Unknown parameter"),
        ({"text": {"format": {"type": "json_object"}}}, "input", None,
         "must contain the word 'json'"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter", "verbosity"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "invalid_value", "'web_search'"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type", "invalid_value",
         "'custom'"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter", "name'"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name", "invalid_value",
         "'^[a-zA-Z0-9_-]+$'"),
        ({"tools": [{"type": "function", "name": "a", "parameters": {"type": "array"}}]},
         "tools[0].parameters", "invalid_function_parameters", "got 'type: \"array\"'"),
        ({"tools": [{"type": "function", "name": f"t{n}"} for n in range(129)]}, "tools",
         "array_above_max_length", "128"),
        ({"tools": [{"type": "function", "name": "a", "defer_loading": True}]},
         "tools[0].defer_loading", "unsupported_parameter", "no search for tools"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value", "with 'tools' parameter"),
        ({"tool_choice": "maybe"}, "tool_choice", "invalid_value",
         "'none', 'auto', and 'required'"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice.type", "invalid_value",
         "'web_search'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name",
         "missing_required_parameter", "'tool_choice.name'"),
        ({"tool_choice": {"type": "function", "name": "a", "mode": "auto"}}, "tool_choice.mode",
         "unknown_parameter", "'tool_choice.mode'"),
        ({"tools": [{"type": "function", "name": "a"}],
          "tool_choice": {"type": "function", "name": "b"}}, "tool_choice", "invalid_value",
         "Tool choice 'b' not found in 'tools' parameter."),
        ({"background": True}, "background", "unsupported_parameter", "while the client waits"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter", "are kept"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt", "unsupported_parameter", "templates"),
        ({"reasoning": {"effort": "low"}}, "reasoning", "unsupported_parameter", "reason"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter", "too long"),
        ({"truncation": "sometimes"}, "truncation", "unsupported_parameter", "too long"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value", "'gold'"),
        ({"safety_identifier": "x" * 65}, "safety_identifier",
         "string_above_max_length", "maximum length 64"),
        ({"messages": []}, "messages", "unknown_parameter",
         "Unrecognized request argument supplied: messages"),
        ({"decoding": "wild"}, "decoding", "invalid_value", "'labels' or 'free'"),
        ({"decoding": "free", "labels": ["a"]}, "labels", "invalid_parameter_combination", "out"),
        ({"labels": []}, "labels", "empty_array", "empty array"),
    ],
)  # fmt: skip
def test_invalid_requests_name_the_fault(
    http: httpx2.Client, changes: dict[str, Any], param: str, code: str | None, words: str
) -> None:
    response = http.post("/responses", json={"model": MODEL, "input": ASK, **changes})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="The model 'ft:a:b:c:d' does not exist") as caught:
        client.responses.create(model="ft:a:b:c:d", input=ASK)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_delta_is_an_http_error(client: OpenAI, stream: bool) -> None:
    with pytest.raises(BadRequestError) as bad:
        client.responses.create(model=MODEL, input="too long", stream=stream)
    assert (bad.value.code, bad.value.param) == ("context_length_exceeded", "input")
    with pytest.raises(APIError, match="The engine has stopped") as stopped:
        client.responses.create(model=MODEL, input="fail before the first word", stream=stream)
    assert getattr(stopped.value, "status_code", None) == 503


def test_the_events_of_a_stream(http: httpx2.Client) -> None:
    events = events_of(http)
    assert [event["type"] for event in events] == REPLY_EVENTS
    created, in_progress, added, part_added, *deltas = events
    *deltas, written, part_done, item_done, completed = deltas
    assert created["response"] == in_progress["response"]
    assert created["response"]["status"] == "in_progress"
    assert created["response"]["output"] == []
    assert "usage" not in created["response"]
    item_id = added["item"]["id"]
    assert added == {
        "type": "response.output_item.added",
        "sequence_number": 2,
        "output_index": 0,
        "item": {
            "id": item_id,
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        },
    }
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    whole = {**empty, "text": "(party)"}
    assert part_added == {
        "type": "response.content_part.added", "sequence_number": 3, **place, "part": empty
    }  # fmt: skip
    assert [delta["delta"] for delta in deltas] == ["(par", "ty)"]
    assert all(delta["logprobs"] == [] and delta["item_id"] == item_id for delta in deltas)
    assert written == {
        "type": "response.output_text.done", "sequence_number": 6, **place, "text": "(party)",
        "logprobs": [],
    }  # fmt: skip
    assert part_done["part"] == whole
    assert item_done["item"]["content"] == [whole]
    assert item_done["item"]["status"] == "completed"
    assert completed["response"]["output"] == [item_done["item"]]
    assert completed["response"]["id"] == created["response"]["id"]
    assert completed["response"]["usage"]["total_tokens"] == 22
    stored = http.get(f"/responses/{created['response']['id']}").json()
    assert stored == completed["response"]


def test_complete_and_streamed_responses_are_equal(http: httpx2.Client) -> None:
    whole = http.post("/responses", json={"model": MODEL, "input": ASK}).json()
    streamed = events_of(http)[-1]["response"]
    for response in (whole, streamed):
        for key in ("id", "created_at", "completed_at"):
            response.pop(key)
        response["output"][0].pop("id")
    assert whole == streamed


def test_a_stream_that_is_cut_off_is_incomplete(http: httpx2.Client) -> None:
    events = events_of(http, input="never end")
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-2]["item"]["status"] == "incomplete"


def test_an_error_midway_ends_the_stream_with_a_failed_response(http: httpx2.Client) -> None:
    *_, error, failed = events_of(http, input="fail midway")
    assert error == {
        "type": "error",
        "sequence_number": 5,
        "code": "server_error",
        "message": "The engine has stopped.",
        "param": None,
    }
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {
        "code": "server_error", "message": "The engine has stopped."
    }  # fmt: skip
    stored = http.get(f"/responses/{failed['response']['id']}").json()
    assert stored == failed["response"]


def test_a_stream_may_remain_unstored(http: httpx2.Client) -> None:
    response = events_of(http, store=False)[-1]["response"]
    assert http.get(f"/responses/{response['id']}").status_code == 404


def test_a_stream_continues_a_conversation(http: httpx2.Client, server) -> None:
    first = events_of(http, input="one")[-1]["response"]["id"]
    events_of(http, input="two", previous_response_id=first)
    assert [message.content for message in asked(server).messages] == ["one", "(party)", "two"]


def test_the_strict_client_reads_every_event(client: OpenAI) -> None:
    stream = client.responses.create(model=MODEL, input=ASK, stream=True)
    assert [event.type for event in stream] == REPLY_EVENTS


def test_the_stream_helper(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=ASK) as stream:
        types = [event.type for event in stream]
        final = stream.get_final_response()
    assert types == REPLY_EVENTS
    assert final.output_text == "(party)"


def test_parsing_with_a_schema(client: OpenAI, server) -> None:
    parsed = client.responses.parse(
        model=MODEL, input='say: {"label":"(party)"}', text_format=Reply
    )
    assert parsed.output_parsed == Reply(label="(party)")
    schema = asked(server).json_schema
    assert schema["required"] == ["label"]
    assert parsed.to_dict()["text"]["format"] == {
        "type": "json_schema", "name": "Reply", "schema": schema, "strict": True
    }  # fmt: skip
    with client.responses.stream(
        model=MODEL, input='say: {"label":"(party)"}', text_format=Reply
    ) as stream:
        assert stream.get_final_response().output_parsed == Reply(label="(party)")


def test_any_json_object(client: OpenAI, server) -> None:
    response = client.responses.create(
        model=MODEL,
        instructions="Answer in JSON.",
        input="say: {}",
        text={"format": {"type": "json_object"}},
    )
    assert asked(server).json_schema == {"type": "object"}
    assert response.to_dict()["text"]["format"] == {"type": "json_object"}


def test_trap_19_the_stream_helper_wants_a_complete_response(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="never end") as stream:
        assert [event.type for event in stream][-1] == "response.incomplete"
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            stream.get_final_response()


async def _use_the_async_client(url: str) -> list[str]:
    async with AsyncOpenAI(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        created = await client.responses.create(model=MODEL, input=ASK)
        found = await client.responses.retrieve(created.id)
        listed = [item async for item in client.responses.input_items.list(created.id)]
        async with client.responses.stream(
            model=MODEL, input="two", previous_response_id=created.id
        ) as stream:
            final = await stream.get_final_response()
        parsed = await client.responses.parse(
            model=MODEL, input='say: {"label":"x"}', text_format=Reply
        )
        await client.responses.delete(created.id)
        assert parsed.output_parsed == Reply(label="x")
        return [found.output_text, *texts(listed), final.output_text]


def test_the_async_client(server) -> None:
    assert asyncio.run(_use_the_async_client(server.url)) == ["(party)", ASK, "(party)"]


def test_closing_a_stream_cancels_the_generation(client: OpenAI, server) -> None:
    with client.responses.create(model=MODEL, input="go on for ever", stream=True) as stream:
        next(iter(stream))
    assert server.chat_model.generations[-1].cancelled.wait(5)


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnected_client_cancels_the_generation(server, stream: bool) -> None:
    known = len(server.chat_model.generations)
    body = json.dumps({"model": MODEL, "input": "go on for ever", "stream": stream})
    address = httpx2.URL(server.url)
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(
            "POST /v1/responses HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        while len(server.chat_model.generations) == known:
            time.sleep(0.01)
    assert server.chat_model.generations[-1].cancelled.wait(5)


def test_with_a_real_model(tmp_path: Path, tiny_base: Path) -> None:
    settings = Settings(
        home=tmp_path / "home", base_model=str(tiny_base), api_key=KEY, device="cpu",
        dtype="float32", threads=1,
    )  # fmt: skip
    with (
        serving(create_app(settings)) as url,
        OpenAI(
            base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client,
    ):
        first = client.responses.create(model=MODEL, input=ASK, max_output_tokens=16, temperature=0)
        assert first.usage
        counted = client.responses.input_tokens.count(model=MODEL, input=ASK)
        assert counted.input_tokens == first.usage.input_tokens
        second = client.responses.create(
            model=MODEL, input="And now?", max_output_tokens=16, previous_response_id=first.id,
            stream=True, extra_body={"labels": ["(party)", "(cake)"]},
        )  # fmt: skip
        last = list(second)[-1]
        assert last.type == "response.completed"
        assert last.response.output_text in ("(party)", "(cake)")
        assert last.response.usage
        assert last.response.usage.input_tokens > first.usage.total_tokens
        with pytest.raises(BadRequestError) as caught:
            client.responses.create(model=MODEL, input="dog " * 300)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")
    with serving(create_app(settings)) as url, OpenAI(base_url=url, api_key=KEY) as client:
        assert client.responses.retrieve(first.id).output_text == first.output_text


@pytest.mark.parametrize(
    ("name", "value", "param", "code"),
    [
        ("labels", [], "labels", "empty_array"),
        ("labels", ["a", ""], "labels[1]", "empty_string"),
        ("labels", ["a" * 1001], "labels[0]", "string_above_max_length"),
        ("labels", [str(number) for number in range(10_001)], "labels", "array_above_max_length"),
        ("temperature", 2.5, "temperature", "decimal_above_max_value"),
        ("safety_identifier", "a" * 65, "safety_identifier", "string_above_max_length"),
        ("prompt_cache_options", {"mode": "never"}, "prompt_cache_options.mode", "invalid_value"),
        ("prompt_cache_retention", "1h", "prompt_cache_retention", "invalid_value"),
        ("moderation", {"model": "x"}, "moderation", "unsupported_parameter"),
    ],
)
def test_shared_parameters_have_the_same_bounds_in_a_chat_and_in_a_response(
    http: httpx2.Client, name: str, value: Any, param: str, code: str
) -> None:
    chat = {"messages": [{"role": "user", "content": ASK}]}
    messages = set()
    for path, body in (("/chat/completions", chat), ("/responses", {"input": ASK})):
        answer = http.post(path, json={"model": MODEL, **body, name: value})
        assert answer.status_code == 400, path
        error = answer.json()["error"]
        assert (error["param"], error["code"]) == (param, code)
        messages.add(error["message"])
    assert len(messages) == 1
