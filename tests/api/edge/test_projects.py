"""Two projects on one server, on a real port: each endpoint with objects of the other project.

The endpoints are taken from the application's routes: one whose path has a new kind of id fails
here until the test is given an id of that kind.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import NotFoundError, OpenAI
from response_checks import error_of

from emojitune.server.app import create_app
from emojitune.server.docs.openapi import api_routes
from emojitune.settings import Settings
from emojitune.store.models import FineTunedModel

SECURITY = Path(__file__).parents[3] / "docs/security.md"
ROUTES = [
    (method, path)
    for method, path, _ in api_routes(create_app(Settings(api_key="none")))
    if "{" in path
]
MESSAGES: Any = [{"role": "user", "content": "hi"}]
CHAT = {"model": "gpt-3.5-turbo", "messages": MESSAGES}
BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}

# The bodies of requests that would be valid for objects of one's own.
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/uploads/{upload_id}/parts"): {"files": {"data": b"abc"}},
    ("POST", "/v1/uploads/{upload_id}/complete"): {"json": {"part_ids": ["{part_id}"]}},
    ("POST", "/v1/chat/completions/{completion_id}"): {"json": {"metadata": {"a": "b"}}},
    ("POST", "/v1/fine_tuning/checkpoints/{model}/permissions"): {
        "json": {"project_ids": ["other"]}
    },
}

# Ids outside the path.
REFERENCES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("POST", "/v1/fine_tuning/jobs", "`training_file`",
     {"json": {"model": "gpt-3.5-turbo", "training_file": "{file_id}"}}),
    ("POST", "/v1/fine_tuning/jobs", "`model`",
     {"json": {"model": "{model}", "training_file": "file-x"}}),
    ("POST", "/v1/batches", "`input_file_id`", {"json": {**BATCH, "input_file_id": "{file_id}"}}),
    ("POST", "/v1/chat/completions", "`model`", {"json": {**CHAT, "model": "{model}"}}),
    ("POST", "/v1/responses", "`model`", {"json": {"model": "{model}", "input": "hi"}}),
    ("POST", "/v1/responses", "`previous_response_id`", {"json": {
        "model": "gpt-3.5-turbo", "input": "hi", "previous_response_id": "{response_id}"}}),
    ("POST", "/v1/responses/input_tokens", "`previous_response_id`", {"json": {
        "model": "gpt-3.5-turbo", "input": "hi", "previous_response_id": "{response_id}"}}),
    ("POST", "/v1/responses", "`input[].id`", {"json": {
        "model": "gpt-3.5-turbo", "input": [{"type": "item_reference", "id": "{item_id}"}]}}),
    ("POST", "/v1/responses/input_tokens", "`input[].id`", {"json": {
        "model": "gpt-3.5-turbo", "input": [{"type": "item_reference", "id": "{item_id}"}]}}),
    ("POST", "/v1/embeddings", "`model`", {"json": {"model": "{model}", "input": "hi"}}),
    ("GET", "/v1/files", "`after`", {"params": {"after": "{file_id}"}}),
    ("GET", "/v1/fine_tuning/jobs", "`after`", {"params": {"after": "{job_id}"}}),
    ("GET", "/v1/chat/completions", "`after`", {"params": {"after": "{completion_id}"}}),
    ("GET", "/v1/batches", "`after`", {"params": {"after": "{batch_id}"}}),
]  # fmt: skip


@dataclass(frozen=True)
class ProjectClient:
    """A project's client, which replaces each `{name}` in a path or body by an id."""

    http: httpx2.Client
    ids: dict[str, str]

    def send(self, method: str, path: str, request: dict[str, Any]) -> httpx2.Response:
        filled = json.loads(_filled(json.dumps(request, default=_text), self.ids))
        return self.http.request(method, _filled(path, self.ids).removeprefix("/v1"), **filled)


def _text(data: bytes) -> str:
    return data.decode()


def _filled(text: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", value)
    assert "{" not in text or text.startswith("{"), f"what is {text}?"
    return text


@pytest.fixture(scope="module")
def ids(server, client: OpenAI) -> dict[str, str]:
    """One object of every kind, of the default project."""
    client.files.create(file=b"{}\n", purpose="fine-tune")
    file = client.files.create(file=b"{}\n", purpose="fine-tune")
    upload = client.uploads.create(
        filename="f", purpose="fine-tune", bytes=3, mime_type="text/jsonl"
    )
    part = client.uploads.parts.create(upload.id, data=b"{}\n")
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file.id)
    name = "ft:gpt-3.5-turbo-0125:local::abcdefgh"
    model = FineTunedModel(name, 1, job.id, "smollm2-135m-instruct", "gpt-3.5-turbo-0125", "a")
    server.context.stores.models.register(model)
    permission = client.fine_tuning.checkpoints.permissions.create(name, project_ids=["third"])
    completion = client.chat.completions.create(
        model="gpt-3.5-turbo", messages=MESSAGES, store=True
    )
    response = client.responses.create(model="gpt-3.5-turbo", input="hi")
    batch = server.context.stores.batches.create(**BATCH, input_file_id=file.id)
    server.context.stores.batches.transition(batch.id, "failed", sources=["validating"])
    return {
        "file_id": file.id,
        "upload_id": upload.id,
        "part_id": part.id,
        "job_id": job.id,
        "model": name,
        "name": name,
        "permission_id": permission.data[0].id,
        "completion_id": completion.id,
        "response_id": response.id,
        "item_id": str(response.output[0].id),
        "batch_id": batch.id,
    }


@pytest.fixture(scope="module")
def other(server) -> Iterator[httpx2.Client]:
    """A plain HTTP client of another project."""
    _, secret = server.app.state.keys.create("other", "of the test")
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx2.Client(base_url=server.url, headers=headers, timeout=10) as opened:
        yield opened


@pytest.fixture(scope="module")
def others(other: httpx2.Client, ids: dict[str, str]) -> tuple[ProjectClient, ProjectClient]:
    """The other project with ids of the default one, and with ids that never existed."""
    never = {kind: value[:-8] + "neverwas" for kind, value in ids.items()}
    return ProjectClient(other, ids), ProjectClient(other, never)


def answers(
    clients: tuple[ProjectClient, ProjectClient], method: str, path: str, request: dict[str, Any]
) -> tuple[int, int]:
    """The statuses of both, which must not differ in anything else."""
    foreign, never = (client.send(method, path, request) for client in clients)
    neutral = [foreign.text, never.text]
    for at, client in enumerate(clients):
        for kind, value in client.ids.items():
            neutral[at] = neutral[at].replace(value, kind)
    assert neutral[0] == neutral[1], f"{method} {path} distinguishes them"
    changing = {"x-request-id", "openai-processing-ms", "date", "content-length"}
    headers = [set(response.headers) - changing for response in (foreign, never)]
    assert headers[0] == headers[1]
    error_of(foreign)
    return foreign.status_code, never.status_code


def test_objects_of_other_projects_are_not_found_at_every_endpoint(
    others: tuple[ProjectClient, ProjectClient], ids: dict[str, str], http: httpx2.Client
) -> None:
    before = _all_objects(ProjectClient(http, ids))
    table = [
        "| method | path | id in | another project's object | nonexistent object |",
        "|---|---|---|---|---|",
    ]
    for method, path in ROUTES:
        statuses = answers(others, method, path, BODIES.get((method, path), {}))
        assert statuses == (404, 404), f"{method} {path}"
        table.append(_row(method, path, "path", statuses))
    for method, path, where, request in REFERENCES:
        statuses = answers(others, method, path, request)
        assert statuses[0] in (400, 404)
        table.append(_row(method, path, where, statuses))
    print(*table, sep="\n")
    assert _all_objects(ProjectClient(http, ids)) == before, "the owner's objects are as they were"
    assert "\n".join(table) in SECURITY.read_text(encoding="utf-8")


def _row(method: str, path: str, where: str, statuses: tuple[int, int]) -> str:
    return f"| {method} | `{path}` | {where} | {statuses[0]} | {statuses[1]} |"


def _all_objects(owner: ProjectClient) -> list[Any]:
    """All objects as their owner sees them: the responses of all GETs that return 200."""
    found = []
    for method, path in ROUTES:
        if method == "GET":
            response = owner.send(method, path, {})
            assert response.status_code == 200, f"{path}: {response.text}"
            found.append(response.text)
    return found


def test_lists_contain_the_projects_own_objects_only(
    other: httpx2.Client, ids: dict[str, str]
) -> None:
    for path in ("/files", "/fine_tuning/jobs", "/chat/completions", "/batches"):
        assert other.get(path).json()["data"] == []
        assert other.get(path).json()["has_more"] is False
    models = {model["id"] for model in other.get("/models").json()["data"]}
    assert "gpt-3.5-turbo" in models
    assert not any(name.startswith("ft:") for name in models)


def test_objects_belong_to_the_project_that_creates_them(
    other: httpx2.Client, client: OpenAI, ids: dict[str, str]
) -> None:
    made = other.post("/files", files={"file": b"{}\n"}, data={"purpose": "fine-tune"}).json()
    assert [file["id"] for file in other.get("/files").json()["data"]] == [made["id"]]
    with pytest.raises(NotFoundError):
        client.files.retrieve(made["id"])
    assert made["id"] not in [file.id for file in client.files.list()]
    other.delete(f"/files/{made['id']}")


def test_a_retry_by_another_project_creates_its_own_job(
    other: httpx2.Client, http: httpx2.Client, ids: dict[str, str]
) -> None:
    file = other.post("/files", files={"file": b"{}\n"}, data={"purpose": "fine-tune"}).json()
    key = {"idempotency-key": "the same"}
    body = {"model": "gpt-3.5-turbo", "training_file": ids["file_id"]}
    first = http.post("/fine_tuning/jobs", json=body, headers=key).json()["id"]
    second = other.post("/fine_tuning/jobs", json=body, headers=key)
    assert (second.status_code, first in second.text) == (400, False)
    mine = {**body, "training_file": file["id"]}
    made = other.post("/fine_tuning/jobs", json=mine, headers=key)
    assert made.status_code == 200
    assert made.json()["id"] != first
    assert "idempotent-replayed" not in made.headers


def test_a_shared_model_can_be_used_but_neither_deleted_nor_shared(
    other: httpx2.Client, client: OpenAI, server, ids: dict[str, str]
) -> None:
    name = "ft:gpt-3.5-turbo-0125:local::sharedby"
    server.context.stores.models.register(
        FineTunedModel(name, 1, "ftjob-1", "smollm2-135m-instruct", "gpt-3.5-turbo-0125", "b")
    )
    body = {**CHAT, "model": name}
    assert other.post("/chat/completions", json=body).status_code == 404
    permissions = client.fine_tuning.checkpoints.permissions
    permission = permissions.create(name, project_ids=["other"]).data[0]
    assert other.post("/chat/completions", json=body).status_code == 200
    assert name in [model["id"] for model in other.get("/models").json()["data"]]
    path = f"/fine_tuning/checkpoints/{name}/permissions"
    refused = [
        other.delete(f"/models/{name}"),
        other.get(path),
        other.post(path, json={"project_ids": ["third"]}),
        other.delete(f"{path}/{permission.id}"),
    ]
    assert [answer.status_code for answer in refused] == [404] * 4
    permissions.delete(permission.id, fine_tuned_model_checkpoint=name)
    assert other.post("/chat/completions", json=body).status_code == 404
    assert client.models.retrieve(name).id == name


def test_prompts_are_cached_per_project(server, http: httpx2.Client, other: httpx2.Client) -> None:
    response_request = {"model": "gpt-3.5-turbo", "input": "hi"}
    for client, project in ((http, "default"), (other, "other")):
        for path, body in (("/chat/completions", CHAT), ("/responses", response_request)):
            assert client.post(path, json=body).status_code == 200
            assert server.chat_model.requests[-1].owner == project


def test_a_batch_runs_on_behalf_of_its_project(
    server, client: OpenAI, other: httpx2.Client, ids: dict[str, str]
) -> None:
    """Its requests can use only that project's models, and its output belongs to that project."""
    lines = [
        {"custom_id": model, "method": "POST", "url": "/v1/chat/completions",
         "body": {**CHAT, "model": model}}
        for model in ("gpt-3.5-turbo", ids["model"])
    ]  # fmt: skip
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = other.post("/files", files={"file": content}, data={"purpose": "batch"}).json()
    batch = other.post("/batches", json={**BATCH, "input_file_id": file["id"]}).json()
    finished = _wait(other, batch["id"])
    assert finished["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    output = other.get(f"/files/{finished['output_file_id']}/content").json()
    assert output["custom_id"] == "gpt-3.5-turbo"
    error = other.get(f"/files/{finished['error_file_id']}/content").json()
    assert error["response"]["body"]["error"]["code"] == "model_not_found"
    with pytest.raises(NotFoundError):
        client.files.retrieve(finished["output_file_id"])


def _wait(http: httpx2.Client, batch_id: str) -> dict[str, Any]:
    for _ in range(1000):
        batch: dict[str, Any] = http.get(f"/batches/{batch_id}").json()
        if batch["status"] == "completed":
            return batch
    raise AssertionError(f"the batch does not end: {batch}")


def test_a_revoked_key_is_refused_immediately(server, other: httpx2.Client) -> None:
    key, secret = server.app.state.keys.create("other")
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx2.get(f"{server.url}/models", headers=headers).status_code == 200
    server.app.state.keys.revoke(key.id)
    response = httpx2.get(f"{server.url}/models", headers=headers)
    assert response.status_code == 401
    assert error_of(response)["code"] == "invalid_api_key"
    assert secret not in response.text
    assert other.get("/models").status_code == 200
