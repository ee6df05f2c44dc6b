"""Stored chat completions through the official SDK. Each test has metadata of its own."""

import asyncio
from typing import Any

import httpx2
import pytest
from openai import APIError, AsyncOpenAI, NotFoundError, OpenAI
from servers import KEY

MODEL = "gpt-3.5-turbo"
ASK: list[Any] = [{"role": "user", "content": "hi"}]


def stored(client: OpenAI, test: str, **more: Any) -> Any:
    asked = {"model": MODEL, "messages": ASK, "metadata": {"test": test}, **more}
    return client.chat.completions.create(**asked, store=True)


def test_a_stored_completion_is_retrieved_unchanged(client: OpenAI) -> None:
    completion = stored(client, "retrieve", n=2)
    assert completion.metadata == {"test": "retrieve"}
    assert client.chat.completions.retrieve(completion.id).to_dict() == completion.to_dict()


def test_a_completion_is_stored_only_on_request(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=ASK)
    with pytest.raises(NotFoundError) as caught:
        client.chat.completions.retrieve(completion.id)
    assert completion.id in caught.value.message
    failed = {"model": MODEL, "messages": [{"role": "user", "content": "fail midway"}]}
    with pytest.raises(APIError):
        client.chat.completions.create(**failed, store=True, metadata={"test": "failed"})
    assert client.chat.completions.list(metadata={"test": "failed"}).data == []


def test_a_stream_is_stored_before_its_end(client: OpenAI) -> None:
    chunks = list(stored(client, "stream", stream=True))
    kept = client.chat.completions.retrieve(chunks[0].id)
    assert kept.choices[0].message.content == "(party)"
    assert kept.usage.completion_tokens == 2
    assert kept.created == chunks[0].created


def test_a_list_starts_with_the_oldest(client: OpenAI) -> None:
    ids = [stored(client, "list").id for _ in range(5)]
    page = client.chat.completions.list(metadata={"test": "list"})
    assert [completion.id for completion in page.data] == ids
    newest = client.chat.completions.list(metadata={"test": "list"}, order="desc")
    assert [completion.id for completion in newest.data] == ids[::-1]


def test_pages_follow_each_other_and_end(client: OpenAI, http: httpx2.Client) -> None:
    ids = [stored(client, "pages").id for _ in range(5)]
    page = client.chat.completions.list(metadata={"test": "pages"}, limit=2)
    assert page.has_more
    assert [completion.id for completion in page] == ids
    raw = http.get("/chat/completions", params={"metadata[test]": "pages", "limit": 2}).json()
    assert {key: raw[key] for key in raw if key != "data"} == {
        "object": "list", "first_id": ids[0], "last_id": ids[1], "has_more": True,
    }  # fmt: skip
    last = http.get("/chat/completions", params={"metadata[test]": "pages", "after": ids[4]})
    assert last.json() == {
        "object": "list", "data": [], "first_id": "", "last_id": "", "has_more": False,
    }  # fmt: skip
    assert http.get("/chat/completions", params={"after": "chatcmpl-x"}).status_code == 404


async def _all_ids(url: str) -> list[str]:
    async with AsyncOpenAI(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        pages = client.chat.completions.list(metadata={"test": "async"}, limit=1)
        return [completion.id async for completion in pages]


def test_the_asynchronous_client_pages_too(client: OpenAI, server: Any) -> None:
    ids = [stored(client, "async").id for _ in range(3)]
    assert asyncio.run(_all_ids(server.url)) == ids


def test_lists_are_filtered_by_model_and_every_pair(client: OpenAI) -> None:
    odd = 'k"]'
    both = stored(client, "filter", metadata={"test": "filter", odd: "a'b"}).id
    one = stored(client, "filter").id

    def ids(**filters: Any) -> list[str]:
        return [completion.id for completion in client.chat.completions.list(**filters).data]

    assert ids(metadata={"test": "filter"}) == [both, one]
    assert ids(metadata={"test": "filter", odd: "a'b"}) == [both]
    assert ids(metadata={"test": "filter"}, model=MODEL) == [both, one]
    assert ids(metadata={"test": "filter"}, model="gpt-3.5-turbo-0125") == [both, one]
    assert ids(metadata={"test": "filter"}, model="gpt-4o-mini") == []
    assert ids(metadata={"test": "filte"}) == []


def test_only_metadata_can_be_changed(client: OpenAI, http: httpx2.Client) -> None:
    completion = stored(client, "update")
    changed = client.chat.completions.update(completion.id, metadata={"mood": "good"})
    assert changed.to_dict() == {**completion.to_dict(), "metadata": {"mood": "good"}}
    assert client.chat.completions.retrieve(completion.id).metadata == {"mood": "good"}
    assert client.chat.completions.update(completion.id, metadata=None).metadata is None
    path = f"/chat/completions/{completion.id}"
    for body, param, code in [
        ({}, "metadata", "missing_required_parameter"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type"),
        ({"metadata": {}, "model": "x"}, "model", "unknown_parameter"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_length"),
    ]:
        error = http.post(path, json=body).json()["error"]
        assert error["param"] == param
        if code != "object_above_max_length":
            assert error["code"] == code


def test_a_deleted_completion_is_gone(client: OpenAI) -> None:
    completion = stored(client, "delete")
    deleted = client.chat.completions.delete(completion.id)
    assert deleted.to_dict() == {
        "id": completion.id, "object": "chat.completion.deleted", "deleted": True,
    }  # fmt: skip
    for call in (
        client.chat.completions.retrieve,
        client.chat.completions.delete,
        client.chat.completions.messages.list,
    ):
        with pytest.raises(NotFoundError):
            call(completion.id)
    with pytest.raises(NotFoundError):
        client.chat.completions.update(completion.id, metadata={})
    assert client.chat.completions.list(metadata={"test": "delete"}).data == []


def test_trap_29_stored_messages_have_their_real_roles(client: OpenAI, server: Any) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages: list[Any] = [
        {"role": "developer", "content": parts},
        {"role": "user", "content": "c", "name": "me"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": parts[:1], "tool_call_id": "call_1"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    ]
    completion = stored(client, "messages", messages=messages)
    # Typed as the assistant's: the strict client cannot read them, as with the hosted service.
    with OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as loose:
        listed = loose.chat.completions.messages.list(completion.id, limit=3)
        assert listed.has_more
        items = [item.to_dict() for item in listed]
        newest = loose.chat.completions.messages.list(completion.id, order="desc", limit=1)
        assert newest.data[0].id == items[-1]["id"]
    roles = ["developer", "user", "assistant", "tool", "assistant"]
    assert [item["role"] for item in items] == roles
    assert [item["content"] for item in items] == ["ab", "c", None, "a", None]
    # An array is listed as it was sent, one of a single part too; a string is not.
    assert [item["content_parts"] for item in items] == [parts, None, None, parts[:1], None]
    assert items[1]["name"] == "me"
    assert items[2]["tool_calls"] == [call]
    assert items[3]["tool_call_id"] == "call_1"
    assert [item["refusal"] for item in items] == [None, None, None, None, "no"]
    assert len({item["id"] for item in items}) == 5


def test_pages_of_messages_name_the_first_and_the_last(client: OpenAI, http: httpx2.Client) -> None:
    completion = stored(client, "message pages", messages=ASK * 3)
    path = f"/chat/completions/{completion.id}/messages"
    page = http.get(path, params={"limit": 2}).json()
    ids = [message["id"] for message in page["data"]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (*ids, True)
    rest = http.get(path, params={"after": page["last_id"]}).json()
    assert (len(rest["data"]), rest["has_more"]) == (1, False)
    assert http.get(path, params={"after": "nothing"}).status_code == 404


@pytest.mark.parametrize("path", ["", "/{id}/messages"])
@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ({"limit": 0}, "limit", "integer_below_min_value"),
        ({"limit": 10_001}, "limit", "integer_above_max_value"),
        ({"limit": "x"}, "limit", "invalid_type"),
        ({"order": "up"}, "order", "invalid_value"),
    ],
)
def test_bad_queries_say_what_is_wrong(
    client: OpenAI, http: httpx2.Client, path: str, query: Any, param: str, code: str
) -> None:
    completion = stored(client, "queries")
    response = http.get(f"/chat/completions{path.format(id=completion.id)}", params=query)
    assert response.status_code == 400
    assert (response.json()["error"]["param"], response.json()["error"]["code"]) == (param, code)
