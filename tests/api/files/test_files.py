import asyncio
import base64
import errno
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, InternalServerError, NotFoundError, OpenAI

from emojitune.store.files import FileStore

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


def test_a_file_is_uploaded_listed_read_and_deleted(client: OpenAI, tmp_path: Path) -> None:
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


def test_bare_bytes_get_the_name_upload(client: OpenAI) -> None:
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


def test_folders_are_stripped_from_a_file_name(http: httpx2.Client) -> None:
    response = upload(http, part("file", b"x", "../../etc/a.jsonl"), part("purpose", b"user_data"))
    assert response.json()["filename"] == "a.jsonl"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="trän 😈.jsonl"', "trän 😈.jsonl"),
        ("filename*=UTF-8''tr%C3%A4n%20%F0%9F%98%88.jsonl", "trän 😈.jsonl"),
        ("filename*=utf-8'en'a%22b%5Cc.jsonl", 'a"b\\c.jsonl'),
        ("filename=\"a.jsonl\"; filename*=utf-8''%C3%A4.jsonl", "a.jsonl"),
        ('filename="a\\"b;c.jsonl"', 'a"b;c.jsonl'),
        ("filename=a.jsonl", "a.jsonl"),
        ('filename=""', "upload"),
    ],
)
def test_all_encodings_of_a_file_name_are_read(
    http: httpx2.Client, disposition: str, name: str
) -> None:
    head = f'--limit\r\nContent-Disposition: form-data; name="file"; {disposition}\r\n\r\nx\r\n'
    response = upload(http, head.encode(), part("purpose", b"user_data"))
    assert response.status_code == 200
    assert response.json()["filename"] == name


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("undefined", "a"),
        ("punycode", "a_"),
        ("unicode_escape", "\\ud800"),
        ("utf-7", "+2AA-"),
    ],
)
def test_a_charset_that_yields_invalid_text_is_a_400(
    http: httpx2.Client, charset: str, name: str
) -> None:
    response = http.post(
        "/files",
        content=part("file", b"x", name) + part("purpose", b"user_data") + b"--limit--\r\n",
        headers={"content-type": f"multipart/form-data; charset={charset}; boundary=limit"},
    )
    assert response.status_code == 400
    assert "Send it in UTF-8" in response.json()["error"]["message"]


def test_a_form_may_name_its_charset(http: httpx2.Client) -> None:
    for charset in ("utf-8", "UTF-8", "ISO-8859-1"):
        name = "trän.jsonl".encode(charset)
        response = http.post(
            "/files",
            content=part("file", b"\xff", "NAME").replace(b"NAME", name)
            + part("purpose", b"user_data")
            + b"--limit--\r\n",
            headers={"content-type": f"multipart/form-data; charset={charset}; boundary=limit"},
        )
        assert response.json()["filename"] == "trän.jsonl"


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


def test_a_body_that_is_not_a_form_is_refused(http: httpx2.Client) -> None:
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


def test_expiry_is_counted_from_creation(client: OpenAI) -> None:
    created = client.files.create(
        file=LINES,
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert created.expires_at == pytest.approx(created.created_at + 7200, abs=1)
    batch = client.files.create(file=LINES, purpose="batch")
    assert batch.expires_at == pytest.approx(batch.created_at + 30 * 86400, abs=1)


def test_purpose_evals_is_accepted_as_by_openai(http: httpx2.Client) -> None:
    response = upload(http, part("file", b"x", "a"), part("purpose", b"evals"))
    assert (response.status_code, response.json()["purpose"]) == (200, "evals")
    http.delete(f"/files/{response.json()['id']}")


def test_pages_contain_each_file_once(client: OpenAI, http: httpx2.Client) -> None:
    ids = [client.files.create(file=LINES, purpose="assistants").id for _ in range(5)]
    assert [file.id for file in client.files.list(purpose="assistants", limit=2)] == ids[::-1]
    ascending = client.files.list(purpose="assistants", limit=2, order="asc")
    assert [file.id for file in ascending] == ids
    page = http.get("/files", params={"purpose": "assistants", "limit": 2}).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[4], ids[3], True)


def test_an_empty_list_has_empty_first_and_last_ids(http: httpx2.Client) -> None:
    assert http.get("/files", params={"purpose": "vision"}).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": "",  # required, a string and not nullable in OpenAI's document
        "last_id": "",
    }


@pytest.mark.parametrize("limit", [0, -1, 10_001, 10**30])
def test_limits_out_of_range_are_refused_in_openais_words(client: OpenAI, limit: int) -> None:
    with pytest.raises(BadRequestError, match=r"limit must be between 1 and 10000\.") as caught:
        client.files.list(limit=limit)
    assert caught.value.param == "limit"


@pytest.mark.parametrize("query", ["limit=", "limit=many", "limit=1.5", "order=up", "order="])
def test_wrong_queries_are_refused(http: httpx2.Client, query: str) -> None:
    response = http.get(f"/files?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == query.split("=")[0]


def test_the_last_page_has_no_more(client: OpenAI, http: httpx2.Client) -> None:
    oldest, newest = (client.files.create(file=LINES, purpose="vision").id for _ in "12")
    page = http.get("/files", params={"purpose": "vision", "limit": 1, "after": newest}).json()
    assert ([file["id"] for file in page["data"]], page["has_more"]) == ([oldest], False)
    page = http.get("/files", params={"purpose": "vision", "after": oldest}).json()
    assert (page["data"], page["has_more"]) == ([], False)
    other = http.get("/files", params={"purpose": "assistants", "after": oldest})
    assert other.status_code == 404
    for file_id in (oldest, newest):
        client.files.delete(file_id)


def test_a_purpose_without_files_is_an_empty_list(client: OpenAI) -> None:
    assert client.files.list(purpose="nonsense").data == []


def test_an_unknown_cursor_is_not_the_first_page(client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="last item of a page"):
        client.files.list(after="file-gone")


def test_result_files_are_read_as_they_were_written(client: OpenAI, server) -> None:
    table = base64.b64encode(b"step,train_loss\n1,0.5\n")
    stored = server.context.stores.files.add(
        [table], filename="step_metrics.csv", purpose="fine-tune-results"
    )
    assert client.files.content(stored.id).read() == table
    assert client.files.retrieve(stored.id).purpose == "fine-tune-results"


def test_an_upload_is_stored_unchanged(client: OpenAI) -> None:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in ("ä", "😈"))
    stored = client.files.create(file=("x.jsonl", lines.encode()), purpose="fine-tune")
    assert client.files.content(stored.id).text == lines


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"prompt,completion\n", 'Line 1 is not a dictionary (HINT: line starts with: "pro...")'),
        (b'[\n  {"messages": []}\n]\n', "Line 1 is not a dictionary"),
        (b'{\n"messages": []}\n', 'line starts with: "{..."'),
        (b"\n\n[1]\n", "Line 3 is not a dictionary"),
        (b"\n \n", "is not a dictionary"),
        (b"\xff\xfe{\x00", "The file is UTF-16, and must be UTF-8. Save it as UTF-8."),
        (b'\x00{\x00}\x00\n', "The file is UTF-16"),
        (b"\x1f\x8b\x08\x00", "The file is compressed with gzip, and must be UTF-8. Unpack it"),
        (b'[{"instruction": "a"}]', "Run `emojitune data convert FILE`"),
        (b"{" + b'"a":{' * 100_000, "Line 1 is not a dictionary"),
    ],
)  # fmt: skip
def test_a_training_file_that_is_not_json_lines_is_refused_on_upload(
    client: OpenAI, server, content: bytes, words: str
) -> None:
    before = server.context.stores.files.list().items
    with pytest.raises(BadRequestError, match="Expected file to have JSONL format") as caught:
        client.files.create(file=content, purpose="fine-tune")
    assert words in caught.value.message
    assert caught.value.param == "file"
    assert server.context.stores.files.list().items == before
    # The content of other files is not checked.
    assert client.files.create(file=content, purpose="user_data").bytes == len(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"messages": []}\n{broken\n[1]\n\n"text"',
        b'{"prompt": "a", "completion": "b"}',
        b'\xef\xbb\xbf{"messages": []}\r\n',
        b'{"messages": "' + b"x" * 500_000 + b'"}\n',
    ],
)
def test_other_faults_of_a_training_file_are_left_to_its_job(
    client: OpenAI, content: bytes
) -> None:
    assert client.files.create(file=content, purpose="fine-tune").status == "processed"


def test_any_bytes_are_returned_unchanged(client: OpenAI) -> None:
    content = bytes(range(256)) * 1000 + b"\r\n--limit--\r\n\x00"
    for purpose in ("assistants", "batch", "vision", "user_data"):
        stored = client.files.create(file=content, purpose=purpose)
        assert stored.purpose == purpose
        assert client.files.content(stored.id).read() == content


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.jsonl", 'attachment; filename="a.jsonl"'),
        ("my file.txt", 'attachment; filename="my file.txt"'),
        ("😈 ä.x", "attachment; filename=\"_ _.x\"; filename*=UTF-8''%F0%9F%98%88%20%C3%A4.x"),
    ],
)  # fmt: skip
def test_a_download_has_the_name_of_its_file(client: OpenAI, name: str, header: str) -> None:
    stored = client.files.create(file=(name, LINES), purpose="user_data")
    assert stored.filename == name
    response = client.files.content(stored.id).response
    assert response.headers["content-disposition"] == header


def test_an_interrupted_download_resumes(client: OpenAI, http: httpx2.Client) -> None:
    path = f"/files/{client.files.create(file=b'0123456789', purpose='user_data').id}/content"
    for requested, sent in (("bytes=4-", b"456789"), ("bytes=0-0", b"0"), ("bytes=8-99", b"89")):
        response = http.get(path, headers={"range": requested})
        assert (response.status_code, response.content) == (206, sent)
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["content-length"] == str(len(sent))


def test_a_download_resumes_only_the_same_file(client: OpenAI, http: httpx2.Client) -> None:
    path = f"/files/{client.files.create(file=b'0123456789', purpose='user_data').id}/content"
    etag = http.get(path).headers["etag"]
    for known, sent in ((etag, b"89"), ('"other"', b"0123456789"), ("", b"0123456789")):
        response = http.get(path, headers={"range": "bytes=8-", "if-range": known})
        assert response.content == sent
    assert http.get(path, headers={"range": "bytes=8-"}).headers["content-range"] == "bytes 8-9/10"


def test_a_file_deleted_during_its_lookup_is_not_found(
    client: OpenAI, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = client.files.create(file=b"nobody else has these bytes", purpose="user_data")
    real = FileStore.path

    def delete_behind(files: FileStore, file_id: str) -> Path:
        path = real(files, file_id)
        files.delete(file_id)
        return path

    monkeypatch.setattr(FileStore, "path", delete_behind)
    with pytest.raises(NotFoundError, match=f"No such File object: {stored.id}"):
        client.files.content(stored.id)


def test_a_file_deleted_during_its_download_is_sent_in_full(
    client: OpenAI, http: httpx2.Client
) -> None:
    content = bytes(900_000)
    stored = client.files.create(file=content, purpose="user_data")
    with http.stream("GET", f"/files/{stored.id}/content") as response:
        pieces = response.iter_bytes()
        got = next(pieces)
        client.files.delete(stored.id)
        got += b"".join(pieces)
    assert got == content


def test_a_file_whose_content_is_missing_is_a_server_error(
    client: OpenAI, http: httpx2.Client, server
) -> None:
    stored = client.files.create(file=b"lost", purpose="user_data")
    server.context.stores.files.path(stored.id).unlink()
    response = http.get(f"/files/{stored.id}/content")
    assert response.status_code == 503
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("file_damaged", "server_error")
    assert "emojitune doctor" in error["message"]


@pytest.mark.parametrize(
    "requested",
    ["bytes=10-", "bytes=99999-", "bytes=5-2", "bytes=abc", "bytes=", "bytes", "lines=0-1", "",
     "bytes=0-1,4-5", "bytes=-", "bytes=" + "9" * 5000 + "-"],
)  # fmt: skip
def test_an_unsupported_range_is_the_entire_file(
    client: OpenAI, http: httpx2.Client, requested: str
) -> None:
    path = f"/files/{client.files.create(file=b'0123456789', purpose='user_data').id}/content"
    response = http.get(path, headers={"range": requested})
    assert (response.status_code, response.content) == (200, b"0123456789")
    assert response.headers["content-type"] == "application/octet-stream"


def test_a_name_cannot_direct_a_download_to_another_folder(client: OpenAI) -> None:
    upload = client.uploads.create(
        filename="../../a.txt", purpose="user_data", bytes=1, mime_type="text/plain"
    )
    part_id = client.uploads.parts.create(upload.id, data=b"x").id
    file = client.uploads.complete(upload.id, part_ids=[part_id]).file
    header = client.files.content(file.id).response.headers["content-disposition"]
    assert "/" not in header
    assert "%2F" not in header


def test_a_name_cannot_forge_a_header(client: OpenAI, server) -> None:
    stored = server.context.stores.files.add([b"x"], filename='a"\r\nx: y\\', purpose="user_data")
    response = client.files.content(stored.id).response
    assert response.headers["content-disposition"].startswith('attachment; filename="a___x: y_"')
    assert "x" not in response.headers


def test_an_expired_file_is_found_nowhere(
    client: OpenAI, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = client.files.create(
        file=("a", b"over"),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert client.files.retrieve(stored.id).expires_at == stored.created_at + 3600
    monkeypatch.setattr(server.clock, "offset", 3600)
    assert stored.id not in {file.id for file in client.files.list()}
    for gone in (client.files.retrieve, client.files.delete, client.files.content):
        with pytest.raises(NotFoundError):
            gone(stored.id)


@pytest.mark.parametrize(
    "expiry",
    [
        {"expires_after[anchor]": "created_at"},
        {"expires_after[seconds]": "3600"},
        {"expires_after[anchor]": "last_active_at", "expires_after[seconds]": "3600"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "2592001"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "soon"},
        {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600",
         "expires_after[x]": "1"},
        {"expires_after": "3600"},
    ],
)  # fmt: skip
def test_an_invalid_expiry_is_refused(http: httpx2.Client, expiry: dict[str, str]) -> None:
    response = http.post("/files", files={"file": LINES}, data={"purpose": "user_data", **expiry})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("expires_after")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"--limit\r\n",
        b"--limit\r\n\r\nno header\r\n--limit--\r\n",
        b"--limit\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--limit--\r\n",
        part("file", b"cut off", "a")[:-5],
        part("purpose", b"x" * 70_000) + b"--limit--\r\n",
        part("purpose", b"batch") * 2 + part("file", b"x", "a") + b"--limit--\r\n",
        part("file", b"x", "a") * 2 + part("purpose", b"batch") + b"--limit--\r\n",
        b"".join(part(f"field{n}", b"x") for n in range(50)) + b"--limit--\r\n",
    ],
)
def test_broken_forms_are_a_400(http: httpx2.Client, body: bytes) -> None:
    headers = {"content-type": "multipart/form-data; boundary=limit"}
    response = http.post("/files", content=body, headers=headers)
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_an_interrupted_upload_does_not_harm_the_server(
    http: httpx2.Client, server, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test-key\r\n"
            b"Content-Type: multipart/form-data; boundary=limit\r\nContent-Length: 900000\r\n\r\n"
            + part("file", b"x" * 100_000, "a")
        )
    assert http.get("/files").status_code == 200
    assert list(server.context.settings.files.glob("incoming-*")) == []
    assert "failed" not in caplog.text


async def _upload_and_download(url: str) -> None:
    async with AsyncOpenAI(
        base_url=url, api_key="sk-test-key", max_retries=0, _strict_response_validation=True
    ) as client:
        stored = await client.files.create(file=("a.jsonl", LINES), purpose="assistants")
        found = [file.id async for file in client.files.list(purpose="assistants", limit=1)]
        assert stored.id in found
        assert (await client.files.content(stored.id)).read() == LINES
        assert (await client.files.delete(stored.id)).deleted


def test_the_asynchronous_client_does_the_same(server) -> None:
    asyncio.run(_upload_and_download(server.url))


@pytest.mark.parametrize(
    "where", ["emojitune.store.files.open_private", "starlette.formparsers.SpooledTemporaryFile"]
)
def test_a_full_disk_is_reported_and_loses_no_file(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = client.files.create(file=("kept.jsonl", LINES), purpose="fine-tune")
    with monkeypatch.context() as patch:
        patch.setattr(where, refuse)
        with pytest.raises(InternalServerError, match="disk is full") as caught:
            client.files.create(file=("lost.jsonl", LINES), purpose="fine-tune")
    assert (caught.value.status_code, caught.value.code) == (503, "disk_full")
    assert client.files.content(before.id).read() == LINES
    assert client.files.create(file=("next.jsonl", LINES), purpose="fine-tune").bytes == len(LINES)
