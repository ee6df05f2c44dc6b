"""Items of earlier responses in the input of a new one: by their ids, or in full."""

from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from emojitune.dataset.example import Message

ASK = "I just passed my driving test!"
MODEL = "gpt-3.5-turbo"
AGAIN: Any = {"role": "user", "content": "Again."}


def reference(item_id: str) -> Any:
    return {"type": "item_reference", "id": item_id}


def asked(server) -> tuple[Message, ...]:
    found: tuple[Message, ...] = server.chat_model.requests[-1].messages
    return found


def item_ids(client: OpenAI, response_id: str) -> list[str]:
    listed = client.responses.input_items.list(response_id, order="asc")
    return [str(item.id) for item in listed]


@pytest.mark.parametrize("kind", [{"type": "item_reference"}, {"type": None}, {}])
def test_an_id_refers_to_the_item(
    client: OpenAI, http: httpx2.Client, server, kind: dict[str, Any]
) -> None:
    first = client.responses.create(model=MODEL, input=ASK)
    body = {
        "model": MODEL,
        "input": [{"role": "user", "content": ASK}, {**kind, "id": first.output[0].id}, AGAIN],
    }
    second = http.post("/responses", json=body)
    assert second.status_code == 200, second.text
    assert asked(server) == (
        Message("user", ASK), Message("assistant", "(party)"), Message("user", "Again.")
    )  # fmt: skip
    listed = client.responses.input_items.list(second.json()["id"], order="asc").data
    assert listed[1].to_dict() == first.output[0].to_dict()


def test_items_of_the_input_have_ids_too(client: OpenAI, server) -> None:
    mine: Any = {"type": "message", "id": "msg_of_mine", "role": "user", "content": "one"}
    first = client.responses.create(model=MODEL, input=[mine, {"role": "user", "content": "two"}])
    ids = [*item_ids(client, first.id), str(first.output[0].id)]
    assert ids[0] == "msg_of_mine"
    second = client.responses.create(model=MODEL, input=[reference(item) for item in ids])
    assert [message.content for message in asked(server)] == ["one", "two", "(party)"]
    assert item_ids(client, second.id) == ids


@pytest.mark.parametrize("stream", [False, True])
def test_an_item_is_deleted_with_its_response(client: OpenAI, stream: bool) -> None:
    first = client.responses.create(model=MODEL, input=ASK)
    second = client.responses.create(
        model=MODEL, input=[reference(str(first.output[0].id)), AGAIN], stream=stream
    )
    if stream:
        list(second)
    unstored = client.responses.create(model=MODEL, input=ASK, store=False)
    ids = [*item_ids(client, first.id), first.output[0].id, unstored.output[0].id, "msg_never"]
    client.responses.delete(first.id)
    for item_id in ids:
        with pytest.raises(NotFoundError, match=f"Item with id '{item_id}' not found") as caught:
            client.responses.create(
                model=MODEL, input=[AGAIN, reference(str(item_id))], stream=stream
            )
        assert (caught.value.param, caught.value.code) == ("input", None)
        assert caught.value.type == "invalid_request_error"


def test_references_beside_a_previous_response(client: OpenAI, server) -> None:
    elsewhere = client.responses.create(model=MODEL, input="elsewhere")
    first = client.responses.create(model=MODEL, input="one")
    ask: Any = {"model": MODEL, "previous_response_id": first.id}
    by_id = [reference(item) for item in item_ids(client, elsewhere.id)]
    client.responses.create(**ask, input=by_id)
    assert [message.content for message in asked(server)] == ["one", "(party)", "elsewhere"]
    with pytest.raises(BadRequestError, match="Duplicate item found with id msg_"):
        client.responses.create(**ask, input=[reference(str(first.output[0].id))])


def test_the_tokens_of_a_referenced_item_are_counted(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=ASK)
    [said] = item_ids(client, first.id)
    count = client.responses.input_tokens.count
    assert count(model=MODEL, input=[reference(said)]) == count(model=MODEL, input=ASK)
    with pytest.raises(NotFoundError, match="Item with id 'msg_never' not found"):
        count(model=MODEL, input=[reference("msg_never")])


@pytest.mark.parametrize(
    "carried",
    [
        {},
        {"summary": []},
        {"id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}], "status": "completed",
         "content": [{"type": "reasoning_text", "text": "Hm."}], "encrypted_content": "gAAA="},
        {"id": None, "encrypted_content": None, "status": None, "anything": {"more": 1}},
    ],
)  # fmt: skip
def test_a_replayed_reasoning_item_is_ignored(
    http: httpx2.Client, server, carried: dict[str, Any]
) -> None:
    body = {"model": MODEL, "input": [{"type": "reasoning", **carried}, AGAIN]}
    created = http.post("/responses", json=body)
    assert created.status_code == 200, created.text
    assert asked(server) == (Message("user", "Again."),)
    listed = http.get(f"/responses/{created.json()['id']}/input_items").json()["data"]
    assert [item["type"] for item in listed] == ["message"]
