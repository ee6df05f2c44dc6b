import asyncio
import base64
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from servers import KEY, serving

from emojitune.server.app import create_app
from emojitune.settings import Settings

SMALL = "text-embedding-3-small"


def test_floats_pass_the_strict_client(client: OpenAI, server) -> None:
    created = client.embeddings.create(
        model=SMALL, input=["dog", "party"], encoding_format="float", user="me"
    )
    assert server.chat_model.embedded[-1] == ["dog", "party"]
    assert created.object == "list"
    assert created.model == SMALL
    assert created.usage.to_dict() == {"prompt_tokens": 8, "total_tokens": 8}
    assert [(item.object, item.index) for item in created.data] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    for item in created.data:
        assert len(item.embedding) == 8
        assert np.linalg.norm(item.embedding) == pytest.approx(1.0, abs=1e-6)
    assert created.data[0].embedding[:2] == pytest.approx([3 / 34**0.5, 4 / 34**0.5])


def test_base64_is_little_endian_floats(http: httpx2.Client) -> None:
    numbers, text = (
        http.post(
            "/embeddings", json={"model": SMALL, "input": "dog", "encoding_format": form}
        ).json()["data"][0]["embedding"]
        for form in ("float", "base64")
    )
    decoded = np.frombuffer(base64.b64decode(text), "<f4")
    assert decoded.tolist() == numbers


def test_trap_20_the_default_of_the_sdk_is_base64_and_it_decodes_it(server) -> None:
    with OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as loose:
        created = loose.embeddings.create(model=SMALL, input="dog")
        same = loose.embeddings.create(model=SMALL, input="dog", encoding_format="float")
    assert created.data[0].embedding == pytest.approx(same.data[0].embedding, abs=1e-7)


def test_without_a_format_the_numbers_are_plain(http: httpx2.Client) -> None:
    data = http.post("/embeddings", json={"model": SMALL, "input": "dog"}).json()["data"]
    assert all(isinstance(number, float) for number in data[0]["embedding"])


async def _embedded_async(url: str) -> list[float]:
    async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        created = await client.embeddings.create(model=SMALL, input=["dog"])
        return created.data[0].embedding


def test_the_async_client(server) -> None:
    assert len(asyncio.run(_embedded_async(server.url))) == 8


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("dog", ["dog"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
        (["same"] * 2048, ["same"] * 2048),
        ([7] * 3000, [[7] * 3000]),
    ],
)
def test_the_four_kinds_of_input(http: httpx2.Client, server, given: Any, inputs: Any) -> None:
    response = http.post("/embeddings", json={"model": SMALL, "input": given})
    assert response.status_code == 200
    assert server.chat_model.embedded[-1] == inputs
    assert [item["index"] for item in response.json()["data"]] == list(range(len(inputs)))


@pytest.mark.parametrize("dimensions", [1, 3, 8])
def test_dimensions_shorten_and_normalize_again(client: OpenAI, dimensions: int) -> None:
    whole, short = (
        client.embeddings.create(
            model="text-embedding-3-large", input="dog", encoding_format="float", **more
        )
        .data[0]
        .embedding
        for more in ({}, {"dimensions": dimensions})
    )
    expected = np.array(whole[:dimensions]) / np.linalg.norm(whole[:dimensions])
    assert short == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "param", "code", "words"),
    [
        ({"model": None}, "model", "missing_required_parameter", "'model'"),
        ({"input": None}, "input", "missing_required_parameter", "'input'"),
        ({"input": ""}, "input", "empty_string", "input cannot be an empty string"),
        ({"input": []}, "input", "empty_array", "input cannot be an empty array"),
        ({"input": ["a", ""]}, "input[1]", "empty_string", "'input[1]'"),
        ({"input": [[1], []]}, "input[1]", "empty_array", "'input[1]'"),
        ({"input": ["a"] * 2049}, "input", "array_above_max_length", "with length 2049"),
        ({"input": 7}, "input", "invalid_type", "expected a string, an array of strings"),
        ({"input": {"text": "a"}}, "input", "invalid_type", "expected a string"),
        ({"input": ["a", 1]}, "input[1]", "invalid_type", "expected a string"),
        ({"input": [1, "a"]}, "input[0]", "invalid_type", "an array of token ids"),
        ({"input": [True]}, "input[0]", "invalid_type", "an array of token ids"),
        ({"input": [[1.5]]}, "input[0]", "invalid_type", "an array of token ids"),
        ({"input": [[1], "a"]}, "input[1]", "invalid_type", "expected token ids"),
        ({"encoding_format": "hex"}, "encoding_format", "invalid_value", "'float' or 'base64'"),
        ({"dimensions": 0}, "dimensions", "integer_below_min_value", ">= 1, but got 0"),
        ({"dimensions": 9}, "dimensions", "integer_above_max_value", "less than or equal to 8"),
        ({"dimensions": True}, "dimensions", "invalid_type", "expected an integer"),
        ({"dims": 5}, "dims", "unknown_parameter", "Unrecognized request argument supplied: dims"),
        ({"user": 5}, "user", "invalid_type", "expected a string"),
    ],
)
def test_invalid_requests_name_the_fault(
    http: httpx2.Client, changes: dict[str, Any], param: str, code: str, words: str
) -> None:
    response = http.post("/embeddings", json={"model": SMALL, "input": "dog", **changes})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert words in error["message"]


def test_nulls_are_absent(http: httpx2.Client) -> None:
    nulls = {"encoding_format": None, "dimensions": None, "user": None}
    response = http.post("/embeddings", json={"model": SMALL, "input": "dog", **nulls})
    assert response.status_code == 200


@pytest.mark.parametrize("name", [SMALL, "text-embedding-ada-002", "gpt-3.5-turbo"])
def test_base_models_and_hosted_names_embed(client: OpenAI, name: str) -> None:
    created = client.embeddings.create(model=name, input="dog", encoding_format="float")
    assert created.model == {"gpt-3.5-turbo": "gpt-3.5-turbo-0125"}.get(name, name)


def test_embedding_models_are_listed_with_the_model_that_serves_them(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert listed[SMALL].to_dict() == {
        "id": SMALL,
        "object": "model",
        "created": 1705948997,
        "owned_by": "openai",
        "shutdown_date": None,
        "served_by": "smollm2-135m-instruct",
        "system_prompt": "",
    }
    assert client.models.retrieve(SMALL) == listed[SMALL]
    with pytest.raises(BadRequestError, match="Only fine-tuned models can be deleted"):
        client.models.delete(SMALL)


def test_an_embedding_model_does_not_chat(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model=SMALL, messages=[{"role": "user", "content": "hi"}])


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="The model 'ft:a:b:c:d' does not exist") as caught:
        client.embeddings.create(model="ft:a:b:c:d", input="dog")
    assert caught.value.code == "model_not_found"


def test_a_wrong_method_has_openais_error(http: httpx2.Client) -> None:
    assert http.get("/embeddings").status_code == 405


def test_nothing_is_computed_for_a_client_that_disconnected(server) -> None:
    body = json.dumps({"model": SMALL, "input": "embed for ever"})
    address = httpx2.URL(server.url)
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(
            "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {KEY}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        deadline = time.monotonic() + 5
        while server.chat_model.embedded[-1:] != [["embed for ever"]]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert server.chat_model.embedding_cancelled.wait(5)


def test_with_a_real_model(tmp_path: Path, tiny_base: Path) -> None:
    settings = Settings(
        home=tmp_path / "home", base_model=str(tiny_base), api_key=KEY, device="cpu",
        dtype="float32", threads=1,
    )  # fmt: skip
    with serving(create_app(settings)) as url, OpenAI(base_url=url, api_key=KEY) as client:
        created = client.embeddings.create(model=SMALL, input=["dog", "dog", "party"])
        dog, again, party = (np.array(item.embedding) for item in created.data)
        assert len(dog) == 32
        np.testing.assert_allclose(dog, again, atol=1e-6)
        assert dog @ party < 0.99
        assert created.usage.total_tokens >= 3
        with pytest.raises(BadRequestError) as caught:
            client.embeddings.create(model=SMALL, input=[[1, 99_999]])
        assert (caught.value.code, caught.value.param) == ("invalid_value", "input")
        with pytest.raises(BadRequestError) as caught:
            client.embeddings.create(model=SMALL, input="dog " * 300)
        assert caught.value.code == "context_length_exceeded"
