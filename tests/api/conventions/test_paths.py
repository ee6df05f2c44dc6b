"""No path, name or id of a request reaches the file system: the server names its own files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from fakes import FakeChatModel, FakeDispatcher
from openai import OpenAI
from servers import KEY, RunningServer, serving

from emojitune.jobs.publish import model_name
from emojitune.server.app import create_app
from emojitune.settings import Settings

WAYS_OUT = [
    "../../../outside/secret",
    "..\\..\\outside\\secret",
    "/etc/passwd",
    "....//....//outside/secret",
    "%2e%2e%2f%2e%2e%2foutside%2fsecret",
    "file:///etc/passwd",
    "~/secret",
    "..",
    "a\0b",
    "CON",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("paths")
    (made / "outside").mkdir()
    (made / "outside/secret").write_text("a secret")
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    settings = Settings(home=folder / "home", cache=folder / "cache", api_key=KEY)
    dispatcher, chat_model = FakeDispatcher(), FakeChatModel()
    app = create_app(settings, dispatcher=dispatcher, load_model=lambda *_: chat_model)
    with serving(app) as url:
        yield RunningServer(url, app, dispatcher, chat_model)


@pytest.fixture(autouse=True)
def _only_content_addressed_files_are_created(folder: Path) -> Iterator[None]:
    yield
    assert {path.name for path in folder.iterdir()} == {"outside", "home"}
    assert [path.name for path in (folder / "outside").iterdir()] == ["secret"]
    assert (folder / "outside/secret").read_text() == "a secret"
    for path in (folder / "home").rglob("*"):
        steps = path.relative_to(folder / "home").parts
        if path.is_file() and not path.name.startswith("emojitune."):
            assert steps[0] == "files"
            assert (len(steps) == 3 and steps[2][:2] == steps[1]) or steps[2].startswith("upload_")


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_files_name_is_not_a_path(http: httpx2.Client, name: str) -> None:
    sent = {"file": (name, f"content of {name}".encode())}
    made = http.post("/files", files=sent, data={"purpose": "user_data"})
    assert made.status_code == 200
    assert "/" not in made.json()["filename"]
    path = f"/files/{made.json()['id']}"
    content = http.get(f"{path}/content")
    assert content.text == f"content of {name}"
    assert "/" not in content.headers["content-disposition"].split("filename*=")[0]
    assert http.delete(path).status_code == 200


@pytest.mark.parametrize("name", WAYS_OUT)
def test_an_uploads_name_and_part_ids_are_not_paths(
    http: httpx2.Client, client: OpenAI, name: str
) -> None:
    upload = client.uploads.create(
        filename=name, purpose="user_data", bytes=3, mime_type="text/plain"
    )
    part = client.uploads.parts.create(upload.id, data=b"abc")
    for parts in ([name], [f"{part.id}/../{part.id}"], [f"../{upload.id}/{part.id}"]):
        refused = http.post(f"/uploads/{upload.id}/complete", json={"part_ids": parts})
        assert refused.status_code == 400
    done = client.uploads.complete(upload.id, part_ids=[part.id])
    assert done.file is not None
    assert http.get(f"/files/{done.file.id}/content").text == "abc"


@pytest.mark.parametrize("name", WAYS_OUT)
def test_an_id_is_looked_up_and_never_opened(http: httpx2.Client, name: str) -> None:
    for encoded in (quote(name, safe=""), quote(quote(name, safe=""), safe="")):
        for path in ("files/{}", "files/{}/content", "uploads/{}/parts", "models/{}",
                     "fine_tuning/jobs/{}", "chat/completions/{}", "responses/{}", "batches/{}",
                     "fine_tuning/checkpoints/{}/permissions"):  # fmt: skip
            for method in ("GET", "POST", "DELETE"):
                response = http.request(method, f"/{path.format(encoded)}")
                assert 400 <= response.status_code < 500
                assert "a secret" not in response.text
                assert "root:" not in response.text


@pytest.mark.parametrize("name", [*WAYS_OUT, "org/name@/etc/passwd", "org/name@../../x"])
def test_a_models_name_is_not_a_folder(
    http: httpx2.Client, client: OpenAI, server: RunningServer, name: str
) -> None:
    file = client.files.create(file=b"{}\n", purpose="fine-tune")
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/responses", {"input": "hi"}),
        ("/embeddings", {"input": "hi"}),
        ("/fine_tuning/jobs", {"training_file": file.id}),
    ]
    before = len(server.chat_model.requests)
    for model in (name, f"ft:{name}"):
        for path, body in bodies:
            assert http.post(path, json={**body, "model": model}).status_code == 404
    assert len(server.chat_model.requests) == before


@pytest.mark.parametrize("suffix", ["../../x", "/etc/passwd", "a/b"])
def test_a_jobs_suffix_is_part_of_a_name(
    client: OpenAI, server: RunningServer, suffix: str
) -> None:
    file = client.files.create(file=b"{}\n", purpose="fine-tune")
    made = client.fine_tuning.jobs.create(
        model="gpt-3.5-turbo", training_file=file.id, suffix=suffix
    )
    job = server.context.stores.jobs.get(made.id)
    assert "/" not in model_name(job, "gpt-3.5-turbo", "local")
