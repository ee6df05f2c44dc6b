"""A POST that a client retries because its connection broke creates no second job (trap 11)."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import OpenAI
from servers import KEY

from emojitune.jobs.states import JOB

PATH = "/fine_tuning/jobs"


@pytest.fixture(scope="module")
def file_id(client: OpenAI) -> str:
    return client.files.create(file=b"{}\n", purpose="fine-tune").id


@pytest.fixture
def body(file_id: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    # A body that is unique to this test.
    return {
        "model": "gpt-3.5-turbo",
        "training_file": file_id,
        "metadata": {"test": request.node.name},
    }


@pytest.fixture
def ids(client: OpenAI, body: dict[str, Any]):
    return lambda: [job.id for job in client.fine_tuning.jobs.list(metadata=body["metadata"])]


def post(http: httpx2.Client, body: dict[str, Any], attempt: int = 0, **headers: str):
    sent = {"x-stainless-retry-count": str(attempt), **headers}
    return http.post(PATH, json=body, headers=sent)


def send_and_disconnect(url: str, body: dict[str, Any], attempt: int = 0) -> None:
    """Send a complete request, and disconnect before the response is read."""
    parts = urlsplit(url)
    content = json.dumps(body).encode()
    head = (
        f"POST {parts.path}{PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"x-stainless-retry-count: {attempt}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(head.encode() + content)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_trap_11_a_broken_connection_and_its_retry_create_one_job(
    server, http: httpx2.Client, body: dict[str, Any], ids
) -> None:
    send_and_disconnect(server.url, body)
    wait_for(ids)
    again = post(http, body, attempt=1)
    assert again.status_code == 200
    assert again.headers["idempotent-replayed"] == "true"
    assert ids() == [again.json()["id"]]
    assert post(http, body, attempt=2).json() == again.json()
    assert len(ids()) == 1


def test_a_retry_of_a_running_attempt_creates_no_second_job(
    server, http: httpx2.Client, body: dict[str, Any], ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = server.context.stores.jobs
    create, begun, go_on, made = jobs.create, threading.Event(), threading.Event(), []

    def slow_at_first(**fields: Any):
        if not begun.is_set():
            begun.set()
            assert go_on.wait(10)
        made.append(create(**fields))
        return made[-1]

    monkeypatch.setattr(jobs, "create", slow_at_first)
    send_and_disconnect(server.url, body)
    assert begun.wait(10)
    job = post(http, body, attempt=1).json()
    go_on.set()
    wait_for(lambda: len(made) == 2)
    assert [job["id"]] == ids() == list({each.id for each in made})


def test_two_requests_create_two_jobs(http: httpx2.Client, body: dict[str, Any], ids) -> None:
    made = [post(http, body).json()["id"] for _ in range(2)]
    assert sorted(ids()) == sorted(made)
    assert len(set(made)) == 2


def test_two_jobs_whose_responses_were_lost_stay_two(
    server, http: httpx2.Client, body: dict[str, Any], ids
) -> None:
    for _ in range(2):
        send_and_disconnect(server.url, body)
    wait_for(lambda: len(ids()) == 2)
    assert {post(http, body, attempt=1).json()["id"] for _ in range(2)} == set(ids())
    assert len(ids()) == 2


def test_the_formatting_of_a_body_does_not_matter(
    server, http: httpx2.Client, body: dict[str, Any], ids
) -> None:
    send_and_disconnect(server.url, body)
    wait_for(ids)
    spelled = json.dumps({"seed": None, **dict(reversed(body.items()))}, indent=2)
    http.post(PATH, content=spelled, headers={"x-stainless-retry-count": "1"})
    assert len(ids()) == 1


def test_another_body_is_another_job(
    server, http: httpx2.Client, body: dict[str, Any], ids
) -> None:
    send_and_disconnect(server.url, body)
    wait_for(ids)
    post(http, {**body, "seed": 1}, attempt=1)
    assert len(ids()) == 2


def test_an_idempotency_key_creates_one_job_in_any_number_of_attempts(
    http: httpx2.Client, body: dict[str, Any], ids
) -> None:
    key = {"Idempotency-Key": f"key-{body['metadata']['test']}"}
    with ThreadPoolExecutor() as pool:
        made = list(pool.map(lambda _: post(http, body, **key).json()["id"], range(4)))
    assert len(set(made)) == 1 == len(ids())
    refused = post(http, {**body, "seed": 1}, **key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "idempotency_key_reused")
    assert post(http, body, **{"Idempotency-Key": "x" * 256}).status_code == 400


def test_a_refused_request_does_not_bind_its_key(http: httpx2.Client, body: dict[str, Any]) -> None:
    key = {"Idempotency-Key": "mended"}
    assert post(http, {**body, "training_file": "file-gone"}, **key).status_code == 400
    assert post(http, body, **key).status_code == 200


def test_a_retry_succeeds_after_its_file_was_deleted(
    server, client: OpenAI, http: httpx2.Client, body: dict[str, Any], ids
) -> None:
    body["training_file"] = client.files.create(file=b"{}\n", purpose="fine-tune").id
    send_and_disconnect(server.url, body)
    wait_for(ids)
    client.files.delete(body["training_file"])
    assert post(http, body, attempt=1).status_code == 200


@pytest.mark.parametrize("header", ["", "x", "-1", "1e3", "²", "99999"])
def test_invalid_retry_counts_are_first_attempts(
    http: httpx2.Client, body: dict[str, Any], ids, header: str
) -> None:
    headers = [(b"x-stainless-retry-count", header.encode())]
    for _ in range(2):
        assert http.post(PATH, json=body, headers=headers).status_code == 200
    assert len(ids()) == 2


@pytest.mark.parametrize(
    ("action", "before"),
    [("cancel", []), ("pause", ["queued"]), ("resume", ["queued", "paused"])],
)
def test_a_retried_change_of_status_succeeds(
    server, http: httpx2.Client, body: dict[str, Any], action: str, before: list[str]
) -> None:
    job = post(http, body).json()["id"]
    for state in before:
        JOB.move(server.context.stores.jobs, job, state)
    statuses = [
        http.post(f"{PATH}/{job}/{action}", headers={"x-stainless-retry-count": attempt})
        for attempt in ("0", "1", "0")
    ]
    assert [answer.status_code for answer in statuses] == [200, 200, 400]
    assert statuses[0].json() == statuses[1].json()
    events = http.get(f"{PATH}/{job}/events").json()["data"]
    assert len(events) == 3, "the event is added once"


@contextmanager
def disconnecting_proxy(url: str) -> Iterator[str]:
    """A proxy that forwards requests, and drops the first connection instead of responding."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for cut in (True, False):
            client, _ = listener.accept()
            with client, socket.create_connection((parts.hostname, parts.port)) as upstream:
                client.settimeout(0.3)
                try:
                    while data := client.recv(65536):
                        upstream.sendall(data)
                except TimeoutError:
                    pass
                answer = upstream.recv(65536)
                if not cut:
                    client.sendall(answer)

    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(serve)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}{parts.path}"
        serving.result(10)
    listener.close()


def test_the_official_client_retries_and_gets_its_job(server, body: dict[str, Any], ids) -> None:
    with (
        disconnecting_proxy(server.url) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=2) as patient,
    ):
        job = patient.fine_tuning.jobs.create(**body)
    assert ids() == [job.id]
