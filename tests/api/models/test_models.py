import asyncio
import json
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from servers import KEY

from emojitune.server.models.routes import retrieve
from emojitune.store.models import FineTunedModel

BASE = "smollm2-135m-instruct"


def register(server, tail: str, adapter: str | None = None, step: int | None = None) -> str:
    name = f"ft:gpt-3.5-turbo-0125:local:emoji-v1:{tail}"
    server.context.stores.models.register(
        FineTunedModel(
            name, 1700000000, "ftjob-1", BASE, "gpt-3.5-turbo-0125", adapter or tail, step
        )
    )
    return name


def adapter_folder(server, name: str) -> Path:
    folder: Path = server.context.settings.adapters / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_list_has_base_models_aliases_and_tuned_ones(client: OpenAI, server) -> None:
    tuned = register(server, "listed00")
    checkpoint = register(server, "check000:ckpt-step-10", step=10)
    found = {model.id: model for model in client.models.list()}
    assert {BASE, "gpt-3.5-turbo", "gpt-4o-mini-2024-07-18", tuned} <= set(found)
    assert checkpoint not in found
    assert client.models.retrieve(checkpoint).id == checkpoint
    assert found["gpt-3.5-turbo"].to_dict() == {
        "id": "gpt-3.5-turbo",
        "object": "model",
        "created": 1677610602,
        "owned_by": "openai",
        "shutdown_date": "2026-10-23",
        "served_by": BASE,
        "system_prompt": "",
    }
    assert found[tuned].owned_by == "local"
    assert found[tuned].to_dict()["served_by"] == BASE
    assert found[tuned].to_dict()["system_prompt"] is None, "nobody noted it"


def test_every_listed_model_can_be_retrieved(client: OpenAI) -> None:
    for model in client.models.list():
        assert client.models.retrieve(model.id) == model


@pytest.fixture
def cached(server) -> str:
    """A model of the hub that was fetched before, and the hub is not reached."""
    name, revision = "some-org/some-model", "a" * 40
    folder = server.context.settings.cache / "hub" / "models--some-org--some-model"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs/main").write_text(revision)
    (folder / "snapshots" / revision).mkdir(parents=True, exist_ok=True)
    (folder / "snapshots" / revision / "config.json").write_text("{}")
    return name


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_repository_id_reaches_its_model_through_the_slash(client: OpenAI, cached: str) -> None:
    assert client.models.retrieve(cached).id == cached


@pytest.mark.parametrize("name", ["no-org/no-model", "a/b..c", "a/b.git", f"a/{'b' * 200}"])
def test_a_repository_that_the_hub_does_not_have_is_no_model(client: OpenAI, name: str) -> None:
    for ask in (client.models.retrieve, client.models.delete):
        with pytest.raises(NotFoundError, match="the Hugging Face hub gave none") as caught:
            ask(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_hosted_name_is_there_before_its_base_is_fetched(server) -> None:
    settings = server.context.settings.model_copy(update={"base_model": "some-org/unfetched"})
    context = replace(server.context, settings=settings)
    found = asyncio.run(retrieve("gpt-3.5-turbo", context))
    assert json.loads(found.body)["served_by"] == "some-org/unfetched"


@pytest.mark.parametrize("name", ["ft:123", "gpt-99", "/etc/passwd"])
def test_an_unknown_model_has_openais_error(client: OpenAI, name: str) -> None:
    with pytest.raises(NotFoundError, match=f"The model '{name}' does not exist") as caught:
        client.models.retrieve(name)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_tuned_model_is_deleted_with_its_adapter(client: OpenAI, server) -> None:
    name, folder = register(server, "deleted0"), adapter_folder(server, "deleted0")
    deleted = client.models.delete(name)
    assert deleted.to_dict() == {"id": name, "object": "model", "deleted": True}
    assert not folder.exists()
    with pytest.raises(NotFoundError):
        client.models.delete(name)


def test_an_adapter_stays_while_another_model_uses_it(client: OpenAI, server) -> None:
    folder = adapter_folder(server, "shared00")
    first, second = (
        register(server, "first000", "shared00"),
        register(server, "second00", "shared00"),
    )
    client.models.delete(first)
    assert folder.exists()
    client.models.delete(second)
    assert not folder.exists()


def test_a_base_model_cannot_be_deleted(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="Only fine-tuned models can be deleted"):
        client.models.delete("gpt-3.5-turbo")


def test_a_checkpoint_is_deleted_by_its_name(client: OpenAI, server) -> None:
    checkpoint = register(server, "check001:ckpt-step-20", "check001", step=20)
    folder = adapter_folder(server, "check001")
    assert client.models.delete(checkpoint).deleted
    assert not folder.exists()
    with pytest.raises(NotFoundError):
        client.models.retrieve(checkpoint)


def test_the_list_has_no_pages_and_every_model_every_key(http: httpx2.Client) -> None:
    body = http.get("/models").json()
    assert set(body) == {"object", "data"}
    openais = {"id", "object", "created", "owned_by", "shutdown_date"}
    keys = openais | {"served_by", "system_prompt"}
    assert all(set(model) == keys for model in body["data"])
    dates = {model["id"]: model["shutdown_date"] for model in body["data"]}
    assert dates["gpt-3.5-turbo-0125"] == "2026-10-23"
    assert dates["gpt-4o-mini"] == "2027-01-14"
    assert dates[BASE] is None


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("path", ["some-org/some-model", "some-org%2Fsome-model"])
def test_trap_14_a_slash_in_a_name_is_part_of_it(http: httpx2.Client, path: str) -> None:
    assert http.get(f"/models/{path}").json()["id"] == "some-org/some-model"


def test_deleting_takes_an_empty_body_that_is_called_json(http: httpx2.Client, server) -> None:
    name = register(server, "emptybod")
    response = http.delete(f"/models/{name}", headers={"content-type": "application/json"})
    assert response.json() == {"id": name, "object": "model", "deleted": True}


def test_the_error_of_an_unknown_model_has_every_key(http: httpx2.Client) -> None:
    response = http.get("/models/ft:123")
    assert response.status_code == 404
    assert response.json() == {
        "error": {
            "message": "The model 'ft:123' does not exist",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_the_async_client_does_the_same(server) -> None:
    name = register(server, "async000")

    async def go() -> None:
        async with AsyncOpenAI(
            base_url=server.url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client:
            assert name in [model.id async for model in client.models.list()]
            assert (await client.models.retrieve(name)).id == name
            assert (await client.models.delete(name)).deleted

    asyncio.run(go())


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_the_list_with_a_trailing_slash_is_no_model_without_a_name(
    http: httpx2.Client, method: str
) -> None:
    response = http.request(method, "/models/")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"Invalid URL ({method} /v1/models/)"
