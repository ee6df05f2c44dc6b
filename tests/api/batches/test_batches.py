import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fakes import FakeChatModel
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from openai.types import Batch
from openai.types.chat import ChatCompletion
from servers import KEY, serving
from slow_chats import SlowChatModel, app_with

from emojitune.jobs.states import BATCH
from emojitune.server.batches import input
from emojitune.store import batches as batches_module
from emojitune.store.batches import BatchResult, BatchStore
from emojitune.store.database import open_database

CHAT = "/v1/chat/completions"
TIMES = {
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
}
KEYS = TIMES | {
    "id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status",
    "output_file_id", "error_file_id", "created_at", "expires_at", "request_counts", "usage",
    "metadata",
}  # fmt: skip


def row(name: str, text: str = "hi", **changes: Any) -> dict[str, Any]:
    body = {"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": CHAT, "body": body, **changes}


def put(client: OpenAI, rows: Iterable[dict[str, Any] | bytes]) -> str:
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows]
    content = b"\n".join(lines) + b"\n"
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def begin(client: OpenAI, rows: Iterable[dict[str, Any] | bytes], **more: Any) -> Batch:
    return client.batches.create(
        input_file_id=put(client, rows), endpoint=CHAT, completion_window="24h", **more
    )


def wait(client: OpenAI, batch_id: str, *states: str) -> Batch:
    states = states or ("completed", "failed", "expired", "cancelled")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch_id)
        if batch.status in states:
            return batch
        time.sleep(0.02)
    raise AssertionError(f"the batch stays {batch.status}")


def lines_of(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def reached(batch: Batch) -> set[str]:
    return {name for name in TIMES if getattr(batch, name) is not None}


def test_a_batch_is_completed(client: OpenAI) -> None:
    rows = [row(f"request-{number}", f"hello {number}") for number in range(5)]
    created = begin(client, rows, metadata={"night": "1"})
    assert set(created.to_dict()) == KEYS
    assert (created.status, created.model, created.errors) == ("validating", None, None)
    assert reached(created) == set()
    assert created.expires_at == created.created_at + 24 * 3600
    assert created.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}

    batch = wait(client, created.id)
    assert batch.status == "completed"
    assert reached(batch) == {"in_progress_at", "finalizing_at", "completed_at"}
    assert batch.request_counts.to_dict() == {"total": 5, "completed": 5, "failed": 0}
    assert (batch.model, batch.error_file_id) == ("gpt-3.5-turbo-0125", None)
    assert batch.metadata == {"night": "1"}
    assert batch.usage.to_dict() == {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 80},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 110,
    }
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    lines = lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"request-{number}" for number in range(5)]
    for line in lines:
        assert set(line) == {"id", "custom_id", "response", "error"}
        assert line["id"].startswith("batch_req_")
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        assert line["response"]["request_id"].startswith("req_")
        completion = ChatCompletion.model_validate(line["response"]["body"])
        assert completion.choices[0].message.content == "(party)"
    assert len({line["id"] for line in lines}) == 5


def test_failed_requests_are_in_the_error_file(client: OpenAI, http: httpx2.Client) -> None:
    hot = row("hot")
    hot["body"]["temperature"] = 5
    stranger = row("stranger")
    stranger["body"]["model"] = "gpt-nobody"
    streamed = row("streamed")
    streamed["body"]["stream"] = True
    batch = wait(client, begin(client, [row("a"), hot, stranger, streamed, row("b")]).id)
    assert batch.status == "completed"
    assert batch.request_counts.to_dict() == {"total": 5, "completed": 2, "failed": 3}
    assert batch.model is None, "the requests name several models"
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["a", "b"]
    errors = {line["custom_id"]: line for line in lines_of(client, batch.error_file_id)}
    assert set(errors) == {"hot", "stranger", "streamed"}
    statuses = {name: line["response"]["status_code"] for name, line in errors.items()}
    assert statuses == {"hot": 400, "stranger": 404, "streamed": 400}
    assert all(line["error"] is None for line in errors.values())
    assert (
        errors["hot"]["response"]["body"] == http.post("/chat/completions", json=hot["body"]).json()
    )
    assert errors["streamed"]["response"]["body"]["error"]["param"] == "stream"


def test_a_batch_of_failures_has_no_output(client: OpenAI) -> None:
    batch = wait(client, begin(client, [row("a", body={})]).id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert client.files.retrieve(batch.error_file_id).filename == f"{batch.id}_error.jsonl"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("a"), b"{broken", row("b")], [("invalid_json_line", None, 2)]),
        ([b"[1]"], [("invalid_type", None, 1)]),
        ([row("a"), row("a")], [("duplicate_custom_id", "custom_id", 2)]),
        ([row("a", url="/v1/embeddings")], [("invalid_url", "url", 1)]),
        ([row("a", method="GET")], [("invalid_value", "method", 1)]),
        ([row("a"), row("b", custom_id=None)],
         [("missing_required_parameter", "custom_id", 2)]),
        ([row("a", custom_id=1)], [("invalid_type", "custom_id", 1)]),
        ([row("a", body="text")], [("invalid_type", "body", 1)]),
        ([row("a", body=None)], [("missing_required_parameter", "body", 1)]),
        ([b"{", b"", b"{"], [("invalid_json_line", None, 1), ("invalid_json_line", None, 3)]),
        ([b" "], [("empty_file", None, None)]),
    ],
)  # fmt: skip
def test_an_input_file_that_breaks_a_rule_fails_the_batch(
    client: OpenAI, rows: list[Any], expected: list[tuple[str, str | None, int | None]]
) -> None:
    batch = wait(client, begin(client, rows).id)
    assert batch.status == "failed"
    assert reached(batch) == {"failed_at"}
    assert batch.errors.object == "list"
    assert [(error.code, error.param, error.line) for error in batch.errors.data] == expected
    assert all(error.message for error in batch.errors.data)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)


def test_a_byte_order_mark_and_other_line_endings_are_accepted(client: OpenAI) -> None:
    rows = [json.dumps(row(name)).encode() for name in ("a", "b")]
    batch = wait(client, begin(client, [b"\xef\xbb\xbf" + rows[0] + b"\r", rows[1] + b"\r"]).id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 2)


def test_an_input_file_has_a_maximum_size(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input, "MAX_REQUESTS", 2)
    batch = wait(client, begin(client, [row("a"), row("b"), row("c")]).id)
    assert [error.code for error in batch.errors.data] == ["too_many_requests"]
    assert wait(client, begin(client, [row("a"), row("b")]).id).status == "completed"
    monkeypatch.setattr(input, "MAX_BYTES", 10)
    batch = wait(client, begin(client, [row("a")]).id)
    assert [error.code for error in batch.errors.data] == ["file_too_large"]


def test_a_line_has_a_maximum_size_and_the_next_one_is_read(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input, "_MAX_LINE_BYTES", 1000)
    lines = [row("a"), b"x" * 5000, {"custom_id": "b"}]
    batch = wait(client, begin(client, lines).id)
    errors = [(error.code, error.line) for error in batch.errors.data]
    assert errors == [("line_too_long", 2), ("missing_required_parameter", 3)]


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"input_file_id": None}, "input_file_id", "missing_required_parameter"),
        ({"input_file_id": "file-gone"}, "input_file_id", None),
        ({"endpoint": None}, "endpoint", "missing_required_parameter"),
        ({"endpoint": "/v1/nothing"}, "endpoint", "invalid_value"),
        ({"endpoint": "/v1/moderations"}, "endpoint", "unsupported_value"),
        ({"endpoint": "/v1/images/generations"}, "endpoint", "unsupported_value"),
        ({"completion_window": None}, "completion_window", "missing_required_parameter"),
        ({"completion_window": "1h"}, "completion_window", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_length"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}},
         "output_expires_after.seconds", "integer_below_min_value"),
        ({"colour": "red"}, "colour", "unknown_parameter"),
    ],
)  # fmt: skip
def test_invalid_batches_are_refused(
    client: OpenAI, http: httpx2.Client, changes: dict[str, Any], param: str, code: str | None
) -> None:
    body = {
        "input_file_id": put(client, [row("a")]),
        "endpoint": CHAT,
        "completion_window": "24h",
        **changes,
    }
    response = http.post("/batches", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)
    if code == "unsupported_value":
        assert CHAT in error["message"]


def test_trap_11_a_retried_post_creates_no_second_batch(
    client: OpenAI, http: httpx2.Client
) -> None:
    file_id = put(client, [row("a")])
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}

    def post(attempt: int) -> httpx2.Response:
        return http.post("/batches", json=body, headers={"x-stainless-retry-count": str(attempt)})

    first = post(0)
    client.files.delete(file_id)
    again = post(1)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert post(0).status_code == 400, "this one is no repetition, and the file is gone"
    made = [batch for batch in client.batches.list() if batch.input_file_id == file_id]
    assert len(made) == 1


def test_two_requests_create_two_batches(client: OpenAI, http: httpx2.Client) -> None:
    body = {
        "input_file_id": put(client, [row("a")]),
        "endpoint": CHAT,
        "completion_window": "24h",
    }
    assert len({http.post("/batches", json=body).json()["id"] for _ in range(2)}) == 2


def test_the_input_file_needs_purpose_batch(client: OpenAI) -> None:
    other = client.files.create(file=b"{}", purpose="user_data").id
    with pytest.raises(BadRequestError, match="needs the purpose batch") as caught:
        client.batches.create(input_file_id=other, endpoint=CHAT, completion_window="24h")
    assert caught.value.param == "input_file_id"


def test_unknown_batches_are_not_found(client: OpenAI) -> None:
    for call in (client.batches.retrieve, client.batches.cancel):
        with pytest.raises(NotFoundError, match="No batch found with id 'batch_x'"):
            call("batch_x")


def test_pages_contain_each_batch_once(client: OpenAI, http: httpx2.Client) -> None:
    ids = [begin(client, [row("a")]).id for _ in range(3)][::-1]
    assert [batch.id for batch in client.batches.list(limit=2)][:3] == ids
    page = http.get("/batches", params={"limit": 2}).json()
    assert (page["object"], page["has_more"]) == ("list", True)
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])
    everything = [batch.id for batch in client.batches.list(limit=100)]
    assert len(everything) == len(set(everything))
    last = http.get("/batches", params={"after": everything[-1]}).json()
    assert (last["data"], last["has_more"]) == ([], False)
    with pytest.raises(NotFoundError, match="last item of a page"):
        client.batches.list(after="batch_gone")
    for limit in (0, -1, 101):
        with pytest.raises(BadRequestError) as caught:
            client.batches.list(limit=limit)
        assert caught.value.param == "limit"


def test_a_cancelled_batch_keeps_its_results(client: OpenAI, server) -> None:
    endless = [row(f"endless-{number}", "go on for ever") for number in range(3)]
    generations = server.chat_model.generations
    before = len(generations)
    created = begin(client, [row("first"), *endless])
    while client.batches.retrieve(created.id).request_counts.completed < 1:
        time.sleep(0.02)
    while len(generations) < before + 3:  # two run at a time
        time.sleep(0.02)
    assert client.batches.cancel(created.id).status in ("cancelling", "cancelled")
    batch = wait(client, created.id)
    assert batch.status == "cancelled"
    assert {"in_progress_at", "cancelling_at", "cancelled_at"} == reached(batch)
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["first"]
    errors = lines_of(client, batch.error_file_id)
    assert [line["custom_id"] for line in errors] == [line["custom_id"] for line in endless]
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert all(line["response"] is None for line in errors)
    assert batch.request_counts.to_dict() == {"total": 4, "completed": 1, "failed": 3}
    deadline = time.monotonic() + 5
    while sum(not one.cancelled.is_set() for one in generations[before:]) > 1:  # but the first
        assert time.monotonic() < deadline, "a request of the batch is still running"
        time.sleep(0.02)
    with pytest.raises(BadRequestError, match="this one is cancelled"):
        client.batches.cancel(created.id)


def test_an_ended_batch_cannot_be_cancelled(client: OpenAI) -> None:
    batch = wait(client, begin(client, [row("a")]).id)
    with pytest.raises(BadRequestError, match="this one is completed"):
        client.batches.cancel(batch.id)


def test_a_batch_does_not_delay_chats(client: OpenAI) -> None:
    created = begin(client, [row(f"endless-{n}", "go on for ever") for n in range(20)])
    wait(client, created.id, "in_progress")
    reply = client.chat.completions.create(
        model="gpt-3.5-turbo", messages=[{"role": "user", "content": "hi"}], timeout=5
    )
    assert reply.choices[0].message.content == "(party)"
    client.batches.cancel(created.id)
    wait(client, created.id)


def test_only_a_few_requests_run_at_a_time(client: OpenAI, server) -> None:
    before = len(server.chat_model.generations)
    batches = [
        begin(client, [row(f"endless-{n}", "go on for ever") for n in range(5)]) for _ in range(2)
    ]
    for created in batches:
        wait(client, created.id, "in_progress")
    while len(server.chat_model.generations) - before < 2:
        time.sleep(0.02)
    time.sleep(0.3)
    assert len(server.chat_model.generations) - before == 2
    for created in batches:
        client.batches.cancel(created.id)
        wait(client, created.id)


def test_requests_outside_the_completion_window_expire(
    client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_WINDOW_SECONDS", 4)
    created = begin(client, [row("in time"), row("late", "go on for ever")])
    batch = wait(client, created.id)
    assert batch.status == "expired"
    assert reached(batch) == {"in_progress_at", "expired_at"}
    assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["in time"]
    (late,) = lines_of(client, batch.error_file_id)
    assert (late["custom_id"], late["error"]["code"]) == ("late", "batch_expired")
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 1, "failed": 1}


def test_output_files_may_expire(client: OpenAI) -> None:
    created = begin(
        client, [row("a")], output_expires_after={"anchor": "created_at", "seconds": 3600}
    )
    output = client.files.retrieve(wait(client, created.id).output_file_id)
    assert output.expires_at == pytest.approx(output.created_at + 3600, abs=1)


async def _through_a_batch(url: str, content: bytes) -> None:
    async with AsyncOpenAI(
        base_url=url, api_key=KEY, max_retries=0, _strict_response_validation=True
    ) as client:
        file = await client.files.create(file=content, purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h"
        )
        while batch.status != "completed":
            await asyncio.sleep(0.02)
            batch = await client.batches.retrieve(batch.id)
        assert batch.id in [found.id async for found in client.batches.list()]
        assert "(party)" in (await client.files.content(batch.output_file_id)).text


def test_the_asynchronous_client_does_the_same(server) -> None:
    asyncio.run(_through_a_batch(server.url, json.dumps(row("a")).encode()))


SERVE = """
import pathlib, socket, sys, uvicorn
from slow_chats import SlowChatModel, app_with
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
app = app_with(pathlib.Path(sys.argv[1]), SlowChatModel(quick=5))
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
"""


@contextmanager
def killed_server(home: Path) -> Iterator[str]:
    """A server in a process of its own, which is killed without a clean shutdown."""
    command = [sys.executable, "-c", SERVE, str(home)]
    folders = [str(Path(__file__).parents[1]), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def stopped_server(home: Path) -> AbstractContextManager[str]:
    return serving(app_with(home, SlowChatModel(quick=5)))


@pytest.mark.parametrize("first_server", [stopped_server, killed_server])
def test_a_batch_continues_after_a_restart(
    tmp_path: Path, first_server: Callable[[Path], AbstractContextManager[str]]
) -> None:
    names = [f"request-{number}" for number in range(12)]
    with (
        first_server(tmp_path) as url,
        OpenAI(base_url=url, api_key=KEY) as client,
    ):
        created = begin(client, [row(name, name) for name in names])
        while client.batches.retrieve(created.id).request_counts.completed < 5:
            time.sleep(0.02)
    second = FakeChatModel()
    with (
        serving(app_with(tmp_path, second)) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=0) as client,
    ):
        batch = wait(client, created.id)
        assert batch.status == "completed"
        assert batch.request_counts.to_dict() == {"total": 12, "completed": 12, "failed": 0}
        lines = lines_of(client, batch.output_file_id)
        assert [line["custom_id"] for line in lines] == names
        prompts = {request.messages[0].content for request in second.requests}
        assert len(prompts) == len(second.requests) == 7, "requests with a result are not run again"


@pytest.mark.parametrize(
    ("left", "ends", "names"),
    [
        (["in_progress"], "completed", ["a", "b"]),
        (["in_progress", "finalizing"], "completed", ["a"]),
        (["in_progress", "cancelling"], "cancelled", ["a"]),
        (["in_progress", "finalizing", "cancelling"], "cancelled", ["a"]),
        (["cancelling"], "cancelled", []),
    ],
)
def test_a_killed_servers_batch_continues_from_every_state(
    tmp_path: Path, left: list[str], ends: str, names: list[str]
) -> None:
    with (
        serving(app_with(tmp_path, FakeChatModel())) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=0) as client,
    ):
        file_id = put(client, [row("a"), row("b")])
    database = open_database(tmp_path)
    batches = BatchStore(database, "default")
    batch_id = batches.create(endpoint=CHAT, input_file_id=file_id, completion_window="24h").id
    for state in left:
        BATCH.move(batches, batch_id, state, **({"total": 2} if state == "in_progress" else {}))
    if names:
        done = [BatchResult(1, False, '{"custom_id": "a"}')]
        # A batch has a result for each line before it writes its files.
        rest = [BatchResult(2, True, '{"custom_id": "b"}')] if "finalizing" in left else []
        batches.record(batch_id, [*done, *rest])
    database.close()
    with (
        serving(app_with(tmp_path, FakeChatModel())) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=0) as client,
    ):
        batch = wait(client, batch_id)
        assert batch.status == ends
        output = lines_of(client, batch.output_file_id) if names else []
        errors = lines_of(client, batch.error_file_id) if batch.error_file_id else []
        assert [line["custom_id"] for line in output] == names
        assert [line["custom_id"] for line in errors] == ["b"] * (len(names) == 1)


def test_a_batch_whose_input_was_deleted_fails(tmp_path: Path) -> None:
    with (
        serving(app_with(tmp_path, SlowChatModel(quick=1))) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=0) as client,
    ):
        created = begin(client, [row("a"), row("b"), row("c")])
        while client.batches.retrieve(created.id).request_counts.completed < 1:
            time.sleep(0.02)
        client.files.delete(created.input_file_id)
    with (
        serving(app_with(tmp_path, FakeChatModel())) as url,
        OpenAI(base_url=url, api_key=KEY, max_retries=0) as client,
    ):
        batch = wait(client, created.id)
        assert batch.status == "failed"
        assert [error.code for error in batch.errors.data] == ["input_file_not_found"]
        assert len(lines_of(client, batch.output_file_id)) == 1
