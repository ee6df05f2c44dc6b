import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

LINES = b'{"messages": []}\n' * 12
FILE_KEYS = {
    "id",
    "object",
    "bytes",
    "created_at",
    "expires_at",
    "filename",
    "purpose",
    "status",
    "status_details",
}


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename else "")
    return (
        b"--limit\r\nContent-Disposition: " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
    )


def upload(http: httpx2.Client, *parts: bytes) -> httpx2.Response:
    headers = {"content-type": "multipart/form-data; boundary=limit"}
    return http.post("/files", content=b"".join(parts) + b"--limit--\r\n", headers=headers)


def test_a_file_is_uploaded_shown_read_and_deleted(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "trän ing.jsonl"
    path.write_bytes(LINES)
    stored = client.files.create(file=path, purpose="fine-tune")
    assert stored.filename == "trän ing.jsonl"
    assert stored.bytes == len(LINES)
    assert stored.status == "processed"
    assert set(stored.to_dict()) == FILE_KEYS
    assert client.files.retrieve(stored.id) == stored
    assert client.files.wait_for_processing(stored.id) == stored
    content = client.files.content(stored.id)
    assert content.read() == LINES
    assert content.response.headers["content-type"] == "application/octet-stream"
    assert "attachment" in content.response.headers["content-disposition"]
    deleted = client.files.delete(stored.id)
    assert deleted.to_dict() == {"id": stored.id, "object": "file", "deleted": True}
    for gone in (client.files.retrieve, client.files.delete, client.files.content):
        with pytest.raises(NotFoundError) as caught:
            gone(stored.id)
        assert f"No such File object: {stored.id}" in caught.value.message
        assert (caught.value.param, caught.value.code) == ("id", None)


def test_bytes_are_called_upload(client: OpenAI) -> None:
    assert client.files.create(file=LINES, purpose="fine-tune").filename == "upload"


def test_the_file_may_come_first_and_without_a_length(http: httpx2.Client) -> None:
    def slowly() -> Iterator[bytes]:
        body = part("file", LINES, "a.jsonl") + part("purpose", b"fine-tune") + b"--limit--\r\n"
        for start in range(0, len(body), 50):
            yield body[start : start + 50]

    headers = {"content-type": "multipart/form-data; boundary=limit"}
    response = http.post("/files", content=slowly(), headers=headers)
    assert response.request.headers["transfer-encoding"] == "chunked"
    assert response.status_code == 200
    assert response.json()["bytes"] == len(LINES)


def test_a_file_name_keeps_no_folders(http: httpx2.Client) -> None:
    response = upload(http, part("file", b"x", "../../etc/a.jsonl"), part("purpose", b"fine-tune"))
    assert response.json()["filename"] == "a.jsonl"


@pytest.mark.parametrize(
    ("parts", "param", "words"),
    [
        ([part("purpose", b"fine-tune")], "file", "Missing required parameter: 'file'."),
        ([part("file", b"x", "a")], "purpose", "Missing required parameter: 'purpose'."),
        ([part("file", b"x", "a"), part("purpose", b"fun")], "purpose", "'fine-tune'"),
        ([part("file", b"x"), part("purpose", b"fine-tune")], "file", "expected a file"),
        ([part("file", b"", "a"), part("purpose", b"fine-tune")], "file", "must not be empty"),
        (
            [part("file", b"x", "a"), part("purpose", b"fine-tune"), part("colour", b"red")],
            "colour",
            "Unrecognized request argument supplied: colour",
        ),
        (
            [
                part("file", b"x", "a"),
                part("purpose", b"batch"),
                part("expires_after[anchor]", b"created_at"),
                part("expires_after[seconds]", b"60"),
            ],
            "expires_after.seconds",
            "Expected a value >= 3600",
        ),
    ],
)
def test_bad_forms_are_refused(
    http: httpx2.Client, parts: list[bytes], param: str, words: str
) -> None:
    response = upload(http, *parts)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]


def test_a_body_that_is_no_form_is_refused(http: httpx2.Client) -> None:
    response = http.post("/files", json={"purpose": "fine-tune"})
    assert response.status_code == 400
    assert "multipart/form-data" in response.json()["error"]["message"]
    broken = http.post("/files", content=b"x", headers={"content-type": "multipart/form-data"})
    assert broken.status_code == 400


@pytest.mark.parametrize("size", [1_000_001, 3_000_000])
def test_a_file_that_is_too_large_is_a_413(http: httpx2.Client, size: int) -> None:
    before = http.get("/files").json()["data"]
    response = upload(http, part("purpose", b"fine-tune"), part("file", b"x" * size, "a"))
    assert response.status_code == 413
    assert "at most" in response.json()["error"]["message"]
    assert http.get("/files").json()["data"] == before


def test_expiry_is_counted_from_now(client: OpenAI) -> None:
    asked = client.files.create(
        file=LINES,
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert asked.expires_at == pytest.approx(asked.created_at + 7200, abs=1)
    batch = client.files.create(file=LINES, purpose="batch")
    assert batch.expires_at == pytest.approx(batch.created_at + 30 * 86400, abs=1)


def test_purpose_evals_is_taken_as_openai_takes_it(http: httpx2.Client) -> None:
    response = upload(http, part("file", b"x", "a"), part("purpose", b"evals"))
    assert (response.status_code, response.json()["purpose"]) == (200, "evals")
    http.delete(f"/files/{response.json()['id']}")


def test_lists_meet_every_file_once(client: OpenAI, http: httpx2.Client) -> None:
    ids = [client.files.create(file=LINES, purpose="assistants").id for _ in range(5)]
    assert [file.id for file in client.files.list(purpose="assistants", limit=2)] == ids[::-1]
    ascending = client.files.list(purpose="assistants", limit=2, order="asc")
    assert [file.id for file in ascending] == ids
    page = http.get("/files", params={"purpose": "assistants", "limit": 2}).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[4], ids[3], True)


def test_an_empty_list_has_no_first_and_no_last(http: httpx2.Client) -> None:
    assert http.get("/files", params={"purpose": "vision"}).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


@pytest.mark.parametrize("limit", [0, -1, 10_001, 10**30])
def test_limits_out_of_range_are_refused(client: OpenAI, limit: int) -> None:
    with pytest.raises(BadRequestError, match=r"Expected a value|expected an integer"):
        client.files.list(limit=limit)


def test_an_unknown_cursor_does_not_start_over(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="last item of a page"):
        client.files.list(after="file-gone")


def test_result_files_are_read_as_they_were_written(client: OpenAI, server) -> None:
    table = base64.b64encode(b"step,train_loss\n1,0.5\n")
    stored = server.services.files.add(
        [table], filename="step_metrics.csv", purpose="fine-tune-results"
    )
    assert client.files.content(stored.id).read() == table
    assert client.files.retrieve(stored.id).purpose == "fine-tune-results"


def test_what_is_uploaded_stays_json_lines(client: OpenAI) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("ä", "😈"))
    stored = client.files.create(file=("x.jsonl", lines.encode()), purpose="fine-tune")
    assert client.files.content(stored.id).text == lines
