import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fakes import FakeChatModel, FakeDispatcher
from openai import APIError, BadRequestError, InternalServerError, NotFoundError, OpenAI
from servers import KEY, serving

from emojitune.dataset.example import Message
from emojitune.errors import ModelError
from emojitune.inference.model_pool import GetModel
from emojitune.inference.types import InferenceModel
from emojitune.server.app import create_app
from emojitune.settings import Settings

ASK = [{"role": "user", "content": "I just passed my driving test!"}]


def request_body(text: str) -> dict[str, Any]:
    return {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": text}]}


def frames_of(http: httpx2.Client, body: dict[str, Any]) -> list[str]:
    response = http.post("/chat/completions", json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-request-id"].startswith("req_")
    assert response.text.endswith("\n\n")
    frames = response.text.removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames]


def test_a_completion_has_every_key(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="gpt-3.5-turbo", messages=ASK, max_tokens=50)
    fields = completion.to_dict()
    assert fields.pop("id").startswith("chatcmpl-")
    assert fields.pop("created") == pytest.approx(time.time(), abs=5)
    assert fields.pop("system_fingerprint").startswith("fp_")
    assert fields == {
        "object": "chat.completion",
        "model": "gpt-3.5-turbo-0125",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "(party)",
                    "refusal": None,
                    "annotations": [],
                },
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": 2,
            "total_tokens": 22,
            "prompt_tokens_details": {"cached_tokens": 16},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "metadata": None,
        "service_tier": "default",
        "moderation": None,
    }


def test_parameters_reach_the_model(client: OpenAI, server) -> None:
    client.chat.completions.create(
        model="gpt-3.5-turbo",
        messages=[
            {"role": "system", "content": [{"type": "text", "text": part} for part in "ab"]},
            {"role": "user", "content": "c", "name": "me"},
        ],
        max_completion_tokens=5,
        temperature=0,
        top_p=0.5,
        seed=7,
        stop=["x", "y"],
        n=2,
        frequency_penalty=0.5,
        presence_penalty=-2,
        logit_bias={"17": -100, "0": 2.5},
        logprobs=True,
        extra_body={"decoding": "free", "alternatives": 1},
    )  # fmt: skip
    request = server.chat_model.requests[-1]
    parameters = request.sampling
    assert request.messages == (Message("system", "ab"), Message("user", "c"))
    assert (parameters.max_tokens, parameters.temperature, parameters.top_p) == (5, 0.0, 0.5)
    assert (parameters.seed, parameters.stop, parameters.n) == (7, ("x", "y"), 2)
    assert (request.decoding, request.labels, request.alternatives) == ("free", (), 1)
    assert (parameters.frequency_penalty, parameters.presence_penalty) == (0.5, -2.0)
    assert (parameters.logit_bias, parameters.top_logprobs) == ({17: -100.0, 0: 2.5}, 0)


def test_nulls_and_parameters_without_effect_are_accepted(client: OpenAI, server) -> None:
    nothing = {"temperature": None, "tools": None, "logprobs": False, "logit_bias": {}}
    client.chat.completions.create(
        model="gpt-3.5-turbo",
        messages=ASK,
        stop="x",
        user="me",
        store=False,
        reasoning_effort="medium",
        verbosity="medium",
        modalities=["text"],
        prediction={"type": "content", "content": "(party)"},
        parallel_tool_calls=True,
        metadata={"a": "b"},
        service_tier="auto",
        safety_identifier="id",
        presence_penalty=0,
        frequency_penalty=0.0,
        response_format={"type": "text"},
        extra_body=nothing,
    )
    parameters = server.chat_model.requests[-1].sampling
    assert (parameters.temperature, parameters.max_tokens, parameters.stop) == (1.0, None, ("x",))


def test_text_may_precede_a_call(client: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather"}}]
    asked: Any = {"messages": [{"role": "user", "content": "look and call"}], "tools": tools}
    whole = client.chat.completions.create(model="gpt-3.5-turbo", **asked)
    with client.chat.completions.stream(model="gpt-3.5-turbo", **asked) as stream:
        streamed = stream.get_final_completion()
    for choice in (whole.choices[0], streamed.choices[0]):
        assert choice.message.content == "Let me look."
        [call] = choice.message.tool_calls or []
        assert call.type == "function"
        assert (call.function.name, call.function.arguments) == ("weather", "{}")
        assert choice.finish_reason == "tool_calls"
    response = client.responses.create(
        model="gpt-3.5-turbo",
        input="look and call",
        tools=[{"type": "function", **tools[0]["function"]}],
    )
    assert [item.type for item in response.output] == ["message", "function_call"]
    assert response.output_text == "Let me look."


def test_a_reply_may_be_sent_back(client: OpenAI) -> None:
    reply = client.chat.completions.create(model="gpt-3.5-turbo", messages=ASK).choices[0].message
    client.chat.completions.create(model="gpt-3.5-turbo", messages=[*ASK, reply, *ASK])


def test_labels_and_their_alternatives(client: OpenAI, server) -> None:
    completion = client.chat.completions.create(
        model="gpt-3.5-turbo",
        messages=ASK,
        extra_body={"labels": ["(party)", "(cake)"], "alternatives": 2},
    )
    assert server.chat_model.requests[-1].labels == ("(party)", "(cake)")
    assert completion.choices[0].to_dict()["alternatives"] == [
        {"content": "(party)", "logprob": -0.5, "probability": 1.0},
        {"content": "(cake)", "logprob": -9999.0, "probability": 0.0},
    ]


@pytest.mark.parametrize(
    ("changes", "param", "code", "words"),
    [
        ({"model": None}, "model", "missing_required_parameter", "'model'"),
        ({"messages": []}, "messages", "empty_array", "empty array"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role",
         "invalid_value", "Supported values are: 'system', 'developer', 'user', "),
        ({"messages": [{"role": "user"}]}, "messages[0].content",
         "missing_required_parameter", "'messages[0].content'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content[0].type", "invalid_value", "'image_url'"),
        ({"n": True}, "n", "invalid_type", "expected an integer, but got a boolean"),
        ({"n": 129}, "n", "integer_above_max_value", "Expected a value <= 128, but got 129"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value", ">= 1, but got 0"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens",
         "invalid_parameter_combination", "at the same time"),
        ({"temperature": 2.5}, "temperature", "decimal_above_max_value", "<= 2, but got 2.5"),
        ({"temperature": "hot"}, "temperature", "invalid_type", "expected a decimal"),
        ({"top_p": -0.1}, "top_p", "decimal_below_min_value", ">= 0, but got -0.1"),
        ({"seed": 2**63}, "seed", "integer_above_max_value", "Invalid 'seed'"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length", "maximum length 4"),
        ({"stream_options": {"include_usage": True}}, "stream_options", None, "only allowed when"),
        ({"stop": 5}, "stop", "invalid_type", "one of a string or an array of strings"),
        ({"top_logprobs": 2}, "top_logprobs", None, "only allowed when 'logprobs' is enabled"),
        ({"top_logprobs": 0}, "top_logprobs", None, "only allowed when 'logprobs' is enabled"),
        ({"prediction": {"type": "image", "content": "x"}}, "prediction.type", "invalid_value",
         "'content'"),
        ({"prediction": {"type": "content"}}, "prediction.content", "missing_required_parameter",
         "'prediction.content'"),
        ({"prompt_cache_options": {"ttl": "9h"}}, "prompt_cache_options.ttl", "invalid_value",
         "'30m'"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "integer_above_max_value", "20"),
        ({"logprobs": 1}, "logprobs", "invalid_type", "expected a boolean, but got an integer"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "decimal_above_max_value", "<= 100"),
        ({"logit_bias": {"hello": 1}}, "logit_bias", "invalid_value", "non-negative integers"),
        ({"logit_bias": [1]}, "logit_bias", "invalid_type", "expected an object"),
        ({"presence_penalty": 2.1}, "presence_penalty", "decimal_above_max_value", "<= 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "decimal_below_min_value", ">= -2"),
        ({"store": "yes"}, "store", "invalid_type", "expected a boolean"),
        ({"metadata": {"a" * 65: "b"}}, "metadata." + "a" * 65, "string_above_max_length", "64"),
        ({"modalities": ["text", "audio"]}, "modalities", "unsupported_parameter", "are text"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio", "unsupported_parameter", "text"),
        ({"web_search_options": {}}, "web_search_options", "unsupported_parameter", "the web"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value", "'auto'"),
        ({"tempreature": 1}, "tempreature", "unknown_parameter",
         "Unrecognized request argument supplied: tempreature"),
        ({"decoding": "wild"}, "decoding", "invalid_value", "'labels' or 'free'"),
        ({"decoding": "free", "labels": ["a"]}, "labels", "invalid_parameter_combination", "out"),
        ({"alternatives": 2001}, "alternatives", "integer_above_max_value", "<= 2000"),
    ],
)  # fmt: skip
def test_invalid_requests_name_the_fault(
    http: httpx2.Client, changes: dict[str, Any], param: str, code: str | None, words: str
) -> None:
    response = http.post("/chat/completions", json={**request_body("hi"), **changes})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert words in error["message"]


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="The model 'ft:a:b:c:d' does not exist") as caught:
        client.chat.completions.create(model="ft:a:b:c:d", messages=ASK)
    assert caught.value.code == "model_not_found"


def test_a_repository_that_the_hub_does_not_have_is_not_found(tmp_path: Path) -> None:
    def unavailable(name: str, get: GetModel) -> InferenceModel:
        raise ModelError(f"The hub did not give {name}.", code="model_unavailable", param="model")

    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache", api_key=KEY)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=unavailable)
    with serving(app) as url, OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        for ask in (
            lambda: client.chat.completions.create(model="org/nothing", messages=ASK),
            lambda: client.responses.create(model="org/nothing", input="hi"),
            lambda: client.embeddings.create(model="org/nothing", input="hi"),
        ):
            with pytest.raises(NotFoundError, match="The model 'org/nothing' does not") as caught:
                ask()
            assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        with pytest.raises(InternalServerError, match="did not give"):
            client.chat.completions.create(model="gpt-3.5-turbo", messages=ASK)


def test_models_that_take_long_to_load_keep_no_chat_waiting(tmp_path: Path) -> None:
    loading, released = threading.Event(), threading.Event()

    def load(name: str, get: GetModel) -> InferenceModel:
        if name.startswith("org/"):
            loading.set()
            assert released.wait(20)
        return FakeChatModel()

    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache", api_key=KEY)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=load)
    with (
        serving(app) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=20) as client,
        ThreadPoolExecutor(20) as threads,
    ):

        def chat(name: str) -> str | None:
            reply = client.chat.completions.create(model=name, messages=ASK)
            return reply.choices[0].message.content

        expected = chat("gpt-3.5-turbo")
        slow = [threads.submit(chat, f"org/model-{number % 10}") for number in range(20)]
        assert loading.wait(10)
        assert [chat("gpt-3.5-turbo") for _ in range(3)] == [expected] * 3
        assert not any(reply.done() for reply in slow)
        released.set()
        assert [reply.result(20) for reply in slow] == [expected] * 20


def test_a_repository_without_a_model_is_the_clients_error(tmp_path: Path) -> None:
    def unusable(name: str, get: GetModel) -> InferenceModel:
        raise ModelError(f"{name} has no chat template.", param="model")

    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache", api_key=KEY)
    app = create_app(settings, dispatcher=FakeDispatcher(), load_model=unusable)
    with serving(app) as url, OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(BadRequestError, match="'org/odd' cannot be used here") as caught:
            client.chat.completions.create(model="org/odd", messages=ASK)
        assert (caught.value.code, caught.value.param) == ("invalid_value", "model")
        with pytest.raises(InternalServerError, match="has no chat template"):
            client.chat.completions.create(model="gpt-3.5-turbo", messages=ASK)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_before_the_first_delta_is_an_http_error(client: OpenAI, stream: bool) -> None:
    with pytest.raises(BadRequestError) as bad:
        client.chat.completions.create(**request_body("too long"), stream=stream)
    assert bad.value.code == "context_length_exceeded"
    with pytest.raises(InternalServerError, match="The engine has stopped") as stopped:
        client.chat.completions.create(**request_body("fail before the first word"), stream=stream)
    assert stopped.value.response.headers["x-should-retry"] == "false"


def test_a_bug_in_the_server_is_a_500_without_details(
    http: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = http.post("/chat/completions", json=request_body("break at once"))
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["type"] == "server_error"
    assert "secret" not in response.text
    assert "a secret detail" in caplog.text
    assert response.headers["x-request-id"] in caplog.text


def test_the_sdk_accumulates_a_stream(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="gpt-3.5-turbo",
            messages=ASK,
            stream=True,
            stream_options={"include_usage": True},
            n=2,
        )
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].index == 0
    for index in (0, 1):
        choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert choices[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in choices) == "(party)"
        assert [choice.finish_reason for choice in choices] == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4


def test_the_stream_helper_works(client: OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-3.5-turbo", messages=ASK) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == "(party)"


def test_frames_have_openais_format(http: httpx2.Client) -> None:
    *frames, done = frames_of(http, {**request_body("hi"), "alternatives": 1})
    assert done == "[DONE]"
    chunks = [json.loads(frame) for frame in frames]
    assert all(set(chunk["choices"][0]) >= {"index", "delta", "finish_reason"} for chunk in chunks)
    assert not any("usage" in chunk for chunk in chunks)
    [alternative] = chunks[-1]["choices"][0]["alternatives"]
    assert alternative == {"content": "(party)", "logprob": -0.5, "probability": 1.0}
    with_usage = {**request_body("hi"), "stream_options": {"include_usage": True}}
    chunks = [json.loads(frame) for frame in frames_of(http, with_usage)[:-1]]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["total_tokens"] == 22


def test_an_error_midway_ends_the_stream(client: OpenAI, http: httpx2.Client) -> None:
    last = json.loads(frames_of(http, request_body("fail midway"))[-1])
    assert last["error"]["message"] == "The engine has stopped."
    with pytest.raises(APIError, match="The engine has stopped"):
        list(client.chat.completions.create(**request_body("fail midway"), stream=True))


def test_closing_a_stream_cancels_the_generation(client: OpenAI, server) -> None:
    stream = client.chat.completions.create(**request_body("go on for ever"), stream=True)
    next(iter(stream))
    assert not server.chat_model.generations[-1].cancelled.is_set()
    stream.close()
    assert server.chat_model.generations[-1].cancelled.wait(5)


def test_a_disconnected_client_cancels_the_generation(server) -> None:
    known = len(server.chat_model.generations)
    body = json.dumps(request_body("go on for ever"))
    address = httpx2.URL(server.url)
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
            "Authorization: Bearer sk-test-key\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        while len(server.chat_model.generations) == known:
            time.sleep(0.01)
    assert server.chat_model.generations[-1].cancelled.wait(5)
