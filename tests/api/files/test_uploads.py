import asyncio
import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fakes import FakeChatModel, FakeDispatcher
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types import Upload
from servers import KEY, RunningServer, serving

from emojitune.server.app import create_app
from emojitune.settings import Settings

LINES = b'{"messages": []}\n' * 10
ANNOUNCED = {"filename": "a.bin", "purpose": "user_data", "bytes": 10, "mime_type": "text/plain"}


def begin(client: OpenAI, size: int = 10, **changes: Any) -> Upload:
    return client.uploads.create(**{**ANNOUNCED, "bytes": size, **changes})


def test_parts_are_combined_in_the_requested_order(client: OpenAI) -> None:
    upload = begin(client, 9, filename="ä 😈.jsonl", mime_type="text/jsonl")
    assert upload.id.startswith("upload_")
    assert upload.to_dict() == {
        "id": upload.id,
        "object": "upload",
        "bytes": 9,
        "created_at": upload.created_at,
        "expires_at": upload.created_at + 3600,
        "filename": "ä 😈.jsonl",
        "purpose": "user_data",
        "status": "pending",
        "file": None,
    }
    with ThreadPoolExecutor(3) as threads:
        parts = list(
            threads.map(
                lambda data: client.uploads.parts.create(upload.id, data=data),
                (b"one", b"two", b"six"),
            )
        )
    assert parts[0].to_dict() == {
        "id": parts[0].id,
        "object": "upload.part",
        "created_at": parts[0].created_at,
        "upload_id": upload.id,
    }
    assert parts[0].id.startswith("part_")
    one, two, six = (part.id for part in parts)
    completed = client.uploads.complete(
        upload.id, part_ids=[six, one, two], md5=hashlib.md5(b"sixonetwo").hexdigest()
    )
    assert completed.status == "completed"
    assert {**completed.to_dict(), "file": None, "status": "pending"} == upload.to_dict()
    assert completed.file == client.files.retrieve(completed.file.id)
    assert (completed.file.filename, completed.file.bytes) == ("ä 😈.jsonl", 9)
    assert client.files.content(completed.file.id).read() == b"sixonetwo"


@pytest.mark.parametrize("as_path", [True, False])
def test_the_sdks_helper_uploads_a_file_in_parts(
    client: OpenAI, tmp_path: Path, as_path: bool
) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(LINES)
    common = {"mime_type": "text/jsonl", "purpose": "fine-tune", "part_size": 64}
    if as_path:
        upload = client.uploads.upload_file_chunked(file=path, **common)
    else:
        upload = client.uploads.upload_file_chunked(
            file=LINES, filename="train.jsonl", bytes=len(LINES), **common
        )
    assert upload.status == "completed"
    assert (upload.file.filename, upload.file.purpose) == ("train.jsonl", "fine-tune")
    assert client.files.content(upload.file.id).read() == LINES


async def _chunked(url: str) -> None:
    async with AsyncOpenAI(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        upload = await client.uploads.upload_file_chunked(
            file=LINES, filename="a", bytes=len(LINES), mime_type="text/jsonl",
            purpose="batch", part_size=50,
        )  # fmt: skip
        assert (await client.files.content(upload.file.id)).read() == LINES
        assert upload.file.expires_at == upload.file.created_at + 30 * 86400
        other = await client.uploads.create(**ANNOUNCED)
        assert (await client.uploads.cancel(other.id)).status == "cancelled"


def test_the_asynchronous_client_does_the_same(server) -> None:
    asyncio.run(_chunked(server.url))


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"filename": None}, "filename", "missing_required_parameter"),
        ({"filename": ""}, "filename", "empty_string"),
        ({"purpose": None}, "purpose", "missing_required_parameter"),
        ({"purpose": "fun"}, "purpose", "invalid_value"),
        ({"purpose": "batch_output"}, "purpose", "invalid_value"),
        ({"bytes": None}, "bytes", "missing_required_parameter"),
        ({"bytes": 0}, "bytes", "integer_below_min_value"),
        ({"bytes": -1}, "bytes", "integer_below_min_value"),
        ({"bytes": 8 * 1024**3 + 1}, "bytes", "integer_above_max_value"),
        ({"bytes": "10"}, "bytes", "invalid_type"),
        ({"bytes": 10.5}, "bytes", "invalid_type"),
        ({"bytes": True}, "bytes", "invalid_type"),
        ({"mime_type": None}, "mime_type", "missing_required_parameter"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}},
         "expires_after.seconds", "integer_below_min_value"),
        ({"expires_after": {"anchor": "created_at", "seconds": "3600"}},
         "expires_after.seconds", "invalid_type"),
        ({"expires_after": {"anchor": "now", "seconds": 3600}},
         "expires_after.anchor", "invalid_value"),
    ],
)  # fmt: skip
def test_invalid_uploads_are_refused(
    http: httpx2.Client, changes: dict[str, Any], param: str, code: str
) -> None:
    response = http.post("/uploads", json={**ANNOUNCED, **changes})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


def test_an_upload_may_have_up_to_eight_gigabytes(client: OpenAI) -> None:
    assert begin(client, 8 * 1024**3).bytes == 8 * 1024**3


def test_the_expiry_applies_to_the_file(client: OpenAI) -> None:
    upload = begin(client, 1, expires_after={"anchor": "created_at", "seconds": 7200})
    part = client.uploads.parts.create(upload.id, data=b"x")
    file = client.uploads.complete(upload.id, part_ids=[part.id]).file
    assert file.expires_at == pytest.approx(file.created_at + 7200, abs=1)


def test_parts_must_belong_to_the_upload_and_have_its_size(client: OpenAI) -> None:
    upload, other = begin(client, 6), begin(client, 3)
    one, two = (client.uploads.parts.create(upload.id, data=data).id for data in (b"one", b"two"))
    foreign = client.uploads.parts.create(other.id, data=b"six").id
    for part_ids, words in (
        ([], "empty array"),
        ([one], "must have as many bytes"),
        ([one, one], "named twice"),
        ([one, foreign], "is no part of"),
        ([one, two, "part_x"], "is no part of"),
    ):
        with pytest.raises(BadRequestError, match=words) as caught:
            client.uploads.complete(upload.id, part_ids=part_ids)
        assert caught.value.param == "part_ids"
    with pytest.raises(BadRequestError, match="MD5") as caught:
        client.uploads.complete(upload.id, part_ids=[one, two], md5="0" * 32)
    assert caught.value.param == "md5"
    assert client.uploads.complete(upload.id, part_ids=[one, two]).status == "completed"


def test_an_ended_upload_cannot_be_changed(client: OpenAI) -> None:
    completed, cancelled = begin(client, 1), begin(client, 1)
    part = client.uploads.parts.create(completed.id, data=b"x").id
    client.uploads.complete(completed.id, part_ids=[part])
    other = client.uploads.parts.create(cancelled.id, data=b"x").id
    assert client.uploads.cancel(cancelled.id).status == "cancelled"
    for upload_id, part_id in ((completed.id, part), (cancelled.id, other)):
        for call in (
            lambda upload_id=upload_id: client.uploads.parts.create(upload_id, data=b"x"),
            lambda upload_id=upload_id, part_id=part_id: client.uploads.complete(
                upload_id, part_ids=[part_id]
            ),
            lambda upload_id=upload_id: client.uploads.cancel(upload_id),
        ):
            with pytest.raises(BadRequestError, match="that is pending"):
                call()


def test_a_retried_end_gets_the_same_response(client: OpenAI, http: httpx2.Client) -> None:
    def end(upload_id: str, how: str, attempt: int, **body: Any) -> httpx2.Response:
        headers = {"x-stainless-retry-count": str(attempt)}
        return http.post(f"/uploads/{upload_id}/{how}", headers=headers, json=body)

    completed, cancelled = begin(client, 1), begin(client, 1)
    part = client.uploads.parts.create(completed.id, data=b"x").id
    for upload, how, body in (
        (completed, "complete", {"part_ids": [part]}),
        (cancelled, "cancel", {}),
    ):
        first = end(upload.id, how, 0, **body)
        again = end(upload.id, how, 1, **body)
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()
        assert end(upload.id, how, 0, **body).status_code == 400, "that is another request"
    assert end(completed.id, "cancel", 1).status_code == 400
    assert end(cancelled.id, "complete", 1, part_ids=[part]).status_code == 400


def test_an_upload_expires_after_an_hour(
    client: OpenAI, server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(client, 1)
    part = client.uploads.parts.create(upload.id, data=b"x").id
    monkeypatch.setattr(server.clock, "offset", 3600)
    for call in (
        lambda: client.uploads.parts.create(upload.id, data=b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(BadRequestError, match="is expired"):
            call()


def test_unknown_uploads_are_not_found(client: OpenAI) -> None:
    for call in (
        lambda: client.uploads.parts.create("upload_x", data=b"x"),
        lambda: client.uploads.complete("upload_x", part_ids=["part_x"]),
        lambda: client.uploads.cancel("upload_x"),
    ):
        with pytest.raises(NotFoundError, match="No such Upload object: upload_x"):
            call()


def test_a_training_file_in_parts_is_checked_like_any_other(client: OpenAI) -> None:
    upload = begin(client, 6, purpose="fine-tune")
    parts = [client.uploads.parts.create(upload.id, data=data).id for data in (b"a,b", b"\n1,")]
    with pytest.raises(BadRequestError, match="Expected file to have JSONL format"):
        client.uploads.complete(upload.id, part_ids=parts)


def test_a_part_is_a_file_in_a_form(client: OpenAI, http: httpx2.Client) -> None:
    path = f"/uploads/{begin(client).id}/parts"
    for request, param in (
        ({"data": {"data": "text"}, "files": {}}, None),
        ({"files": {"file": b"x"}}, "data"),
        ({"files": {"data": b"x"}, "data": {"colour": "red"}}, "colour"),
        ({"json": {"data": "x"}}, None),
    ):
        response = http.post(path, **request)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param


def test_a_part_has_at_most_64_megabytes(client: OpenAI) -> None:
    most = 64 * 1024**2
    upload = begin(client, most)
    part = client.uploads.parts.create(upload.id, data=io.BytesIO(bytes(most)))
    with pytest.raises(APIStatusError, match=f"at most {most} bytes") as caught:
        client.uploads.parts.create(upload.id, data=io.BytesIO(bytes(most + 1)))
    assert caught.value.status_code == 413
    completed = client.uploads.complete(upload.id, part_ids=[part.id])
    assert completed.file.bytes == most
    client.files.delete(completed.file.id)


def test_an_empty_part_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="must not be empty"):
        client.uploads.parts.create(begin(client).id, data=b"")


def test_an_upload_continues_after_a_restart(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", cache=tmp_path / "cache", api_key=KEY)
    upload_id, parts = "", []
    for data in (b"one", b"two"):
        app = create_app(
            settings, dispatcher=FakeDispatcher(), load_model=lambda *_: FakeChatModel()
        )
        with serving(app) as url, OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            upload_id = upload_id or begin(client, 6).id
            parts.append(client.uploads.parts.create(upload_id, data=data).id)
            if len(parts) == 2:
                file = client.uploads.complete(upload_id, part_ids=parts).file
                assert client.files.content(file.id).read() == b"onetwo"
