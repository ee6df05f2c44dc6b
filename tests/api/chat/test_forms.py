"""Chat through the official SDK on a real, tiny model: formats, tools, log-probabilities, roles.

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
from openai import AsyncOpenAI, BadRequestError, LengthFinishReasonError, OpenAI
from pydantic import BaseModel
from servers import KEY, serving
from tiny_model import chat_tiny

from emojitune.inference.chat_model import ChatModel
from emojitune.server.app import create_app
from emojitune.settings import Settings
from emojitune.store.models import FineTunedModel

MODEL = "gpt-3.5-turbo"
ASK: list[Any] = [{"role": "user", "content": "Some json, please."}]
CLOSED = "ft:gpt-3.5-turbo-0125:me:labels:abcd1234"
LABELS = ("(devil)", "(dog)", "(party)")


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    sure: bool


def tool(name: str, **parameters: Any) -> Any:
    return {"type": "function", "function": {"name": name, **parameters}}


def mood_tool(strict: bool = True) -> Any:
    schema = {**Mood.model_json_schema(), "additionalProperties": False}
    return tool("mood", description="Notes a mood.", parameters=schema, strict=strict)


@pytest.fixture(scope="module")
def url(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with one tiny model: as a base model, and as a tuned one with closed vocabulary."""
    folder = tmp_path_factory.mktemp("forms")
    settings = Settings(home=folder / "home", cache=folder / "cache", api_key=KEY)
    opened = chat_tiny(tiny_base, context_length=1024)
    closed = ChatModel(opened.runtime, LABELS)
    app = create_app(
        settings,
        dispatcher=FakeDispatcher(),
        load_model=lambda name, _: closed if name == CLOSED else opened,
    )
    with serving(app) as address:
        tuned = FineTunedModel(CLOSED, 1, "ftjob-1", "smollm2-135m-instruct", "gpt-3.5-turbo", "a")
        app.state.context_for("default").stores.models.register(tuned)
        yield address


def test_a_reply_fits_a_json_schema(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=MODEL, messages=ASK, response_format=Mood, n=3, seed=2, temperature=2
    )
    for choice in completion.choices:
        assert isinstance(choice.message.parsed, Mood)
        assert Mood.model_validate_json(choice.message.content or "") == choice.message.parsed
        assert choice.finish_reason == "stop"
        assert not choice.message.tool_calls


async def _parse_async(url: str) -> Any:
    async with AsyncOpenAI(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        return await client.chat.completions.parse(
            model=MODEL, messages=ASK, response_format=Mood, temperature=0
        )


def test_the_asynchronous_client_parses_too(url: str) -> None:
    completion = asyncio.run(_parse_async(url))
    assert isinstance(completion.choices[0].message.parsed, Mood)


def test_a_streamed_reply_is_parsed_by_the_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, response_format=Mood, temperature=0
    ) as stream:
        contents = [event.delta for event in stream if event.type == "content.delta"]
        completion = stream.get_final_completion()
    assert isinstance(completion.choices[0].message.parsed, Mood)
    assert "".join(contents) == completion.choices[0].message.content


def test_json_that_is_cut_off_has_the_finish_reason_length(client: OpenAI) -> None:
    with pytest.raises(LengthFinishReasonError):
        client.chat.completions.parse(
            model=MODEL, messages=ASK, response_format=Mood, temperature=0, max_tokens=3
        )


def test_any_json_object(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=ASK, response_format={"type": "json_object"},
        temperature=2, seed=4, n=4, max_tokens=100,
    )  # fmt: skip
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    for choice in completion.choices:
        assert (choice.message.content or "").startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content or ""), dict)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "mood"}}, "stop"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
            {"type": "function", "function": {"name": "mood"}}]}}, "tool_calls"),
    ],
)  # fmt: skip
def test_a_required_call(client: OpenAI, choice: Any, reason: str) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=ASK, tools=[mood_tool()], tool_choice=choice,
        parallel_tool_calls=False, temperature=0,
    )  # fmt: skip
    [answer] = completion.choices
    assert answer.finish_reason == reason
    assert answer.message.to_dict()["content"] is None
    [call] = answer.message.tool_calls or []
    assert call.id.startswith("call_")
    assert (call.type, call.function.name) == ("function", "mood")
    Mood.model_validate_json(call.function.arguments)


@pytest.mark.parametrize("size", [1, 3, 12])
def test_a_call_that_is_cut_off_at_its_beginning_is_not_text(client: OpenAI, size: int) -> None:
    asked: Any = {
        "model": MODEL, "messages": ASK, "tools": [mood_tool()], "tool_choice": "required",
        "max_tokens": size, "temperature": 0,
    }  # fmt: skip
    [choice] = client.chat.completions.create(**asked).choices
    assert (choice.finish_reason, choice.message.content) == ("length", None)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_calls_are_streamed_name_first(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=ASK, tools=[mood_tool()], tool_choice="required",
            parallel_tool_calls=False, temperature=0, stream=True,
        )
    )  # fmt: skip
    choices = [chunk.choices[0] for chunk in chunks]
    assert choices[0].delta.to_dict() == {"role": "assistant", "content": None, "refusal": None}
    first, *rest = [call for choice in choices for call in choice.delta.tool_calls or []]
    assert (first.index, first.type, first.function.name) == (0, "function", "mood")
    assert first.function.arguments == ""
    assert first.id.startswith("call_")
    assert all(set(call.to_dict()) == {"index", "function"} for call in rest)
    Mood.model_validate_json("".join(call.function.arguments for call in rest))
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["tool_calls"]


def test_the_helper_parses_streamed_calls(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, tools=[mood_tool()], tool_choice="required",
        parallel_tool_calls=False, temperature=0,
    ) as stream:  # fmt: skip
        [call] = stream.get_final_completion().choices[0].message.tool_calls or []
    assert set(call.function.parsed_arguments) == {"mood", "sure"}


def test_a_tool_without_parameters_takes_no_arguments(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=ASK, tools=[tool("now")], tool_choice="required",
        parallel_tool_calls=False, temperature=0,
    )  # fmt: skip
    [call] = completion.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments) == {}


def test_tool_choice_none_leaves_text(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model=CLOSED, messages=ASK, tools=[mood_tool()], tool_choice="none", temperature=0
    )
    message = completion.choices[0].message
    assert message.content in LABELS
    assert message.tool_calls is None


def test_deprecated_functions(client: OpenAI) -> None:
    function = mood_tool()["function"]
    del function["strict"]
    asked: Any = {
        "model": MODEL, "messages": ASK, "functions": [function],
        "function_call": {"name": "mood"}, "temperature": 0,
    }  # fmt: skip
    [answer] = client.chat.completions.create(**asked).choices
    assert (answer.finish_reason, answer.message.content) == ("stop", None)
    assert answer.message.function_call is not None
    assert answer.message.function_call.name == "mood"
    Mood.model_validate_json(answer.message.function_call.arguments)
    assert answer.message.tool_calls is None
    chunks = client.chat.completions.create(**asked, stream=True)
    deltas = [chunk.choices[0].delta.function_call for chunk in chunks]
    pieces = [delta for delta in deltas if delta]
    assert [piece.name for piece in pieces if piece.name] == ["mood"]
    Mood.model_validate_json("".join(piece.arguments or "" for piece in pieces))


def test_a_round_trip_through_a_tool(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "tools": [mood_tool()], "temperature": 0}
    first = client.chat.completions.create(
        **asked, messages=ASK, tool_choice="required", parallel_tool_calls=False
    )
    message = first.choices[0].message
    [call] = message.tool_calls or []
    answer = {"role": "tool", "tool_call_id": call.id, "content": [{"type": "text", "text": "ok"}]}
    second = client.chat.completions.create(
        **asked, messages=[*ASK, message, answer], tool_choice="none", max_tokens=3
    )
    assert second.choices[0].message.content is not None
    assert second.usage.prompt_tokens > len("<tool_call>") + len(call.function.arguments)


def test_every_role_is_supported(client: OpenAI) -> None:
    called = {"name": "f", "arguments": "not json"}
    messages: list[Any] = [
        {"role": "developer", "content": "a", "name": "d"},
        {"role": "system", "content": [{"type": "text", "text": "b"}]},
        {"role": "user", "content": "<|im_end|> c", "name": "me"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "call_1", "type": "function", "function": called},
            {"id": "call_2", "type": "function", "function": called}]},
        {"role": "tool", "content": "2", "tool_call_id": "call_2"},
        {"role": "tool", "content": "1", "tool_call_id": "call_1"},
        {"role": "assistant", "content": None, "function_call": called},
        {"role": "function", "name": "f", "content": "3"},
        {"role": "function", "name": "f", "content": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "assistant", "refusal": "no"},
        {"role": "user", "content": "d"},
    ]  # fmt: skip
    completion = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=2)
    assert completion.usage.completion_tokens <= 2


def logprobs_of(choice: Any) -> list[Any]:
    assert choice.logprobs.to_dict().keys() == {"content", "refusal"}
    assert choice.logprobs.refusal is None
    return choice.logprobs.content


@pytest.mark.parametrize("model", [MODEL, CLOSED])
def test_log_probabilities_spell_the_reply(client: OpenAI, model: str) -> None:
    completion = client.chat.completions.create(
        model=model, messages=ASK, logprobs=True, top_logprobs=3, max_tokens=20, temperature=0
    )
    [choice] = completion.choices
    tokens = logprobs_of(choice)
    spelled = b"".join(bytes(token.bytes or ()) for token in tokens)
    assert spelled.decode(errors="replace") == choice.message.content
    assert len(tokens) == completion.usage.completion_tokens
    for token in tokens:
        assert -9999.0 <= token.logprob <= 0.0
        assert len(token.top_logprobs) == 3
        values = [top.logprob for top in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert all(
            set(top.to_dict()) == {"token", "logprob", "bytes"} for top in token.top_logprobs
        )
    likeliest = [token.logprob == token.top_logprobs[0].logprob for token in tokens]
    assert all(likeliest) == (model == MODEL), "a label is not what a random model would say"


@pytest.mark.parametrize("model", [MODEL, CLOSED])
def test_temperature_does_not_change_log_probabilities(client: OpenAI, model: str) -> None:
    def ask(**more: Any) -> list[tuple[str, float]]:
        completion = client.chat.completions.create(
            model=model, messages=ASK, logprobs=True, max_tokens=4, seed=1, **more
        )
        tokens = logprobs_of(completion.choices[0])
        assert all(token.top_logprobs == [] for token in tokens)
        return [(token.token, token.logprob) for token in tokens]

    cold, warm = ask(temperature=0), ask(temperature=1e-4)
    assert [token for token, _ in cold] == [token for token, _ in warm]
    assert [value for _, value in cold] == pytest.approx([value for _, value in warm], abs=1e-4)


def test_streamed_log_probabilities_equal_those_of_the_complete_reply(client: OpenAI) -> None:
    asked: Any = {
        "model": MODEL, "messages": ASK, "logprobs": True, "top_logprobs": 1, "max_tokens": 20,
        "temperature": 0,
    }  # fmt: skip
    whole = client.chat.completions.create(**asked).choices[0]
    chunks = list(client.chat.completions.create(**asked, stream=True))
    told = [
        token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content or []
    ]
    assert [token.bytes for token in told] == [token.bytes for token in logprobs_of(whole)]
    assert [token.logprob for token in told] == pytest.approx(
        [token.logprob for token in logprobs_of(whole)], abs=1e-4
    )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_log_probabilities_end_where_a_stop_sequence_cuts(client: OpenAI, size: int) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "max_tokens": 20, "temperature": 0}
    content = client.chat.completions.create(**asked).choices[0].message.content or ""
    stop = content[4 : 4 + size]
    [choice] = client.chat.completions.create(**asked, logprobs=True, stop=[stop, "never"]).choices
    assert choice.finish_reason == "stop"
    assert choice.message.content == content[: content.index(stop)]
    spelled = b"".join(bytes(token.bytes or ()) for token in logprobs_of(choice))
    assert spelled.decode(errors="replace") == choice.message.content


def test_a_bias_bans_and_forces_tokens(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "max_tokens": 5, "temperature": 0}
    only = client.chat.completions.create(**asked, logit_bias={"70": 100})
    [token] = set(only.choices[0].message.content or "")
    banned = client.chat.completions.create(**asked, logit_bias={"70": -100}, n=4)
    assert all(token not in (choice.message.content or "") for choice in banned.choices)


def test_a_penalty_makes_repetition_rarer(client: OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "max_tokens": 20, "temperature": 0}
    # All but two tokens are out of reach, so that the model must repeat itself.
    pair = {"70": 100, "71": 99}
    for penalty in ("frequency_penalty", "presence_penalty"):
        plain = client.chat.completions.create(**asked, logit_bias=pair)
        varied = client.chat.completions.create(**asked, logit_bias=pair, **{penalty: 2})
        assert len(set(plain.choices[0].message.content or "")) <= len(
            set(varied.choices[0].message.content or "")
        )


SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "m", "schema": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("changes", "param", "code", "words"),
    [
        ({"logit_bias": {"99999": 1}}, "logit_bias", "invalid_value", "99999"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value", "'xml'"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema",
         "missing_required_parameter", "'response_format.json_schema'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
         "response_format.json_schema.name", "missing_required_parameter", "json_schema.name'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
         "response_format.json_schema.name", "invalid_value", "'^[a-zA-Z0-9_-]+$'"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a" * 65}}},
         "response_format.json_schema.name", "string_above_max_length", "maximum length 64"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "strict": True, "schema": {"type": "strin"}}}},
         "response_format", "invalid_value", "Invalid schema for response_format"),
        ({"response_format": {"type": "json_object"},
          "messages": [{"role": "user", "content": "hi"}]},
         "messages", None, "must contain the word 'json'"),
        ({"tool_choice": "auto"}, "tool_choice", None, "when 'tools' are specified"),
        ({"tool_choice": "none"}, "tool_choice", None, "when 'tools' are specified"),
        ({"tools": [mood_tool()], "tool_choice": 5}, "tool_choice", "invalid_type",
         "expected one of a string or an object, but got an integer"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", None, "'tools' are specified"),
        ({"tools": [mood_tool()], "tool_choice": "maybe"}, "tool_choice", "invalid_value",
         "'none', 'auto', and 'required'"),
        ({"tools": [mood_tool()], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice", "invalid_value", "'x' not found in 'tools'"),
        ({"tools": [mood_tool()], "tool_choice": {"type": "function"}}, "tool_choice.function",
         "missing_required_parameter", "'tool_choice.function'"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter", ""),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type",
         "invalid_value", "'custom'"),
        ({"tools": [tool("a b")]}, "tools[0].function.name", "invalid_value", "pattern"),
        ({"tools": [tool("a", parameters={"type": "array"})]}, "tools[0].function.parameters",
         "invalid_function_parameters", "got 'type: \"array\"'"),
        ({"tools": [tool("a", strict=True, parameters={"properties": {"x": {"type": "wat"}}})]},
         "tools[0].function.parameters", "invalid_function_parameters", "Invalid type: wat"),
        ({"tools": [tool(f"t{n}") for n in range(129)]}, "tools", "array_above_max_length", "128"),
        ({"functions": []}, "functions", "empty_array", "empty array"),
        ({"function_call": "auto"}, "function_call", None, "'functions' are specified"),
        ({"functions": [{"name": "f"}], "function_call": "required"}, "function_call",
         "invalid_value", "Supported values are: 'none' and 'auto'."),
        ({"functions": [{"name": "f"}], "function_call": {"name": "x"}}, "function_call",
         "invalid_value", "'x' not found in 'functions'"),
        ({"functions": [{"name": "f"}], "function_call": {}}, "function_call.name",
         "missing_required_parameter", "'function_call.name'"),
        ({"tools": [mood_tool()], "functions": [{"name": "f"}]}, "functions",
         "invalid_parameter_combination", "Leave 'functions' out"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id",
         "missing_required_parameter", "'messages[0].tool_call_id'"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]},
         "messages.[0].role", None, "must be a response to a preceding message"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}, *ASK]}, "messages.[1].role",
         None, "did not have response messages: call_1"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content",
         "missing_required_parameter", "'messages[0].content'"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type",
         "expected one of a string or an array of objects, but got an integer"),
        ({"messages": [{"role": "assistant", "content": [
            {"type": "refusal", "refusal": "no"}, {"type": "text", "text": "x"}]}, *ASK]},
         "messages[0].content", "invalid_value", "exactly one refusal part"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content",
         "empty_array", "empty array"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]},
         "messages[0].content[0].text", "missing_required_parameter", "content[0].text'"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]},
         "messages[0].tool_calls", "invalid_value", "only assistant messages"),
        ({"messages": [{"role": "user", "content": [
            {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]},
         "messages[0].content[0].type", "invalid_value", "'input_audio'"),
        ({"messages": [{"role": "user", "content": "x", "mood": "y"}]}, "messages[0].mood",
         "unknown_parameter", "Unknown parameter: 'messages[0].mood'."),
        ({"model": CLOSED, "tools": [mood_tool()]}, "tools", "unsupported_parameter",
         '`decoding`: "free"'),
        ({"model": CLOSED, "response_format": SCHEMA}, "response_format", "unsupported_parameter",
         '`decoding`: "free"'),
        ({"labels": ["a", "b"], "response_format": SCHEMA}, "response_format",
         "unsupported_parameter", "constrained to a set of labels"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_invalid_requests_name_the_fault(
    http: httpx2.Client,
    changes: dict[str, Any],
    param: str,
    code: str | None,
    words: str,
    stream: bool,
) -> None:
    body = {"model": MODEL, "messages": ASK, "max_tokens": 2, "stream": stream, **changes}
    response = http.post("/chat/completions", json=body)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]


def test_free_decoding_lets_a_closed_vocabulary_model_fit_a_schema(client: OpenAI) -> None:
    completion = client.chat.completions.parse(
        model=CLOSED, messages=ASK, response_format=Mood, extra_body={"decoding": "free"},
        temperature=0,
    )  # fmt: skip
    assert isinstance(completion.choices[0].message.parsed, Mood)


def test_the_prompt_of_several_replies_is_counted_once(client: OpenAI) -> None:
    one = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=3)
    many = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=3, n=5)
    assert many.usage.prompt_tokens == one.usage.prompt_tokens
    assert 5 <= many.usage.completion_tokens <= 15


def test_a_refused_order_of_roles_is_not_a_server_error(http: httpx2.Client) -> None:
    lonely = {"model": MODEL, "messages": [{"role": "assistant", "content": "x"}], "max_tokens": 2}
    assert http.post("/chat/completions", json=lonely).status_code == 200


def test_a_bad_request_does_not_affect_the_next_one(client: OpenAI) -> None:
    with pytest.raises(BadRequestError):
        client.chat.completions.create(model=MODEL, messages=ASK, logit_bias={"99999": 1})
    assert client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=1).choices
