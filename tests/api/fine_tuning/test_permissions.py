"""Checkpoint permissions, the only list of the API with pages by `last_id`."""

from urllib.parse import quote

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from emojitune.store.models import FineTunedModel

CHECKPOINT = "ft:org/base:local:emoji-v1:abcd1234:ckpt-step-7"


@pytest.fixture(scope="module")
def model(server) -> str:
    server.context.stores.models.register(
        FineTunedModel(CHECKPOINT, 1700000000, "ftjob-1", "b", "org/base", "a", 7)
    )
    return CHECKPOINT


@pytest.fixture(scope="module")
def granted(client: OpenAI, model: str) -> list[str]:
    """The ids of five permissions, the oldest first."""
    page = client.fine_tuning.checkpoints.permissions.create(
        model, project_ids=[f"proj_{n}" for n in range(5)]
    )
    assert [item.project_id for item in page] == [f"proj_{n}" for n in range(5)]
    assert all(item.id.startswith("cp_") for item in page)
    return [item.id for item in page]


def test_granting_returns_a_list(http: httpx2.Client, model: str, granted) -> None:
    path = f"/fine_tuning/checkpoints/{quote(model, safe='')}/permissions"
    body = http.post(path, json={"project_ids": ["proj_0", "proj_0"]}).json()
    assert set(body) == {"object", "data", "has_more", "first_id", "last_id"}
    assert set(body["data"][0]) == {"id", "object", "created_at", "project_id"}
    assert [item["id"] for item in body["data"]] == [granted[0]], "what is granted stays granted"
    assert body["has_more"] is False


def test_trap_5_permissions_page_by_the_last_id(client: OpenAI, model: str, granted) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    newest_first = [item.id for item in permissions.list(model, limit=2)]
    assert newest_first == granted[::-1]
    oldest_first = [item.id for item in permissions.list(model, limit=2, order="ascending")]
    assert oldest_first == granted
    first = permissions.list(model, limit=2)
    assert (first.first_id, first.last_id, first.has_more) == (granted[4], granted[3], True)


def test_permissions_can_be_filtered_by_project(client: OpenAI, model: str, granted) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    assert [item.id for item in permissions.list(model, project_id="proj_3")] == [granted[3]]
    assert list(permissions.list(model, project_id="proj_x")) == []


def test_the_older_name_of_the_list_works(client: OpenAI, model: str, granted) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        found = client.fine_tuning.checkpoints.permissions.retrieve(model)
    assert [item.id for item in found.data] == granted[::-1]


@pytest.mark.parametrize("encode", [False, True])
def test_model_names_may_be_plain_or_percent_encoded(
    http: httpx2.Client, model: str, granted, encode: bool
) -> None:
    name = quote(model, safe="") if encode else model
    found = http.get(f"/fine_tuning/checkpoints/{name}/permissions").json()
    assert [item["id"] for item in found["data"]] == granted[::-1]


def test_a_permission_is_revoked_once(client: OpenAI, model: str) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    made = permissions.create(model, project_ids=["proj_gone"]).data[0].id
    gone = permissions.delete(made, fine_tuned_model_checkpoint=model)
    assert gone.to_dict() == {"id": made, "object": "checkpoint.permission", "deleted": True}
    with pytest.raises(NotFoundError, match=made):
        permissions.delete(made, fine_tuned_model_checkpoint=model)


def test_permissions_are_deleted_with_their_model(client: OpenAI, server) -> None:
    again = FineTunedModel("ft:b:local::12345678", 1700000000, "ftjob-1", "b", "b", "gone", None)
    server.context.stores.models.register(again)
    permissions = client.fine_tuning.checkpoints.permissions
    permissions.create(again.name, project_ids=["proj_1"])
    client.models.delete(again.name)
    with pytest.raises(NotFoundError):
        permissions.list(again.name)
    server.context.stores.models.register(again)
    assert permissions.list(again.name).data == []


@pytest.mark.parametrize("name", ["ft:gone", "gpt-3.5-turbo"])
def test_other_models_have_no_permissions(client: OpenAI, name: str) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    for call in (
        lambda: permissions.list(name),
        lambda: permissions.create(name, project_ids=["proj_1"]),
        lambda: permissions.delete("cp_1", fine_tuned_model_checkpoint=name),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found"


def test_invalid_requests_name_the_fault(client: OpenAI, http: httpx2.Client, model: str) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    with pytest.raises(BadRequestError) as caught:
        permissions.create(model, project_ids=[])
    assert (caught.value.param, caught.value.code) == ("project_ids", "empty_array")
    with pytest.raises(BadRequestError) as caught:
        permissions.list(model, order="desc")  # type: ignore[arg-type]
    assert caught.value.param == "order"
    with pytest.raises(NotFoundError):
        permissions.list(model, after="cp_gone")
    response = http.post(f"/fine_tuning/checkpoints/{model}/permissions", json={})
    assert response.json()["error"]["code"] == "missing_required_parameter"
