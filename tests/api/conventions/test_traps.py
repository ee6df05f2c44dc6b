"""The traps for implementers of OpenAI's API, one test each.

They come from recorded traffic, the clients' sources and OpenAI's own document, and are numbered
as in the list that they were collected in. `trained` is a real job on a tiny model; the other
fixtures cover the HTTP edge over fakes.
"""

import ast
import base64
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import openai
import pytest
import schemas
from openai import APIResponseValidationError, BadRequestError, NotFoundError, OpenAI
from openai.types.fine_tuning import FineTuningJob
from servers import KEY
from training_jobs import LABELS, messages, training_file, training_server, wait

import emojitune
from emojitune.jobs.states import JOB, queue_validated
from emojitune.server.docs.openapi import api_routes, body_model_of, openapi_document

MESSAGES: Any = [{"role": "user", "content": "What a day, what is going on?"}]
CHAT: dict[str, Any] = {"model": "gpt-3.5-turbo", "messages": MESSAGES}


class Trained(NamedTuple):
    """A job that has succeeded, on a server that is still running."""

    client: OpenAI
    job: FineTuningJob
    raw: dict[str, Any]
    created: dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Iterator[Trained]:
    folder = tmp_path_factory.mktemp("trained")
    with training_server(folder / "home", tiny_base) as client:
        file = client.files.create(file=training_file(folder), purpose="fine-tune")
        created = client.fine_tuning.jobs.with_raw_response.create(
            model="gpt-3.5-turbo", training_file=file.id, validation_file=file.id
        )
        job = wait(client, created.parse().id)
        assert job.status == "succeeded", job.error
        raw = client.fine_tuning.jobs.with_raw_response.retrieve(job.id)
        yield Trained(client, job, raw.http_response.json(), created.http_response.json())


@pytest.fixture(scope="module")
def file_id(client: OpenAI) -> str:
    return client.files.create(file=b"{}\n", purpose="fine-tune").id


@pytest.fixture
def new_job(http: httpx2.Client, file_id: str):
    def create(**fields: Any) -> dict[str, Any]:
        body = {"model": "gpt-3.5-turbo", "training_file": file_id, **fields}
        return http.post("/fine_tuning/jobs", json=body).json()

    return create


@pytest.fixture(scope="module")
def loose(server) -> Iterator[OpenAI]:
    """The official client with its defaults, which is lenient."""
    with OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as opened:
        yield opened


def events_of(http: httpx2.Client, path: str, body: dict[str, Any]) -> list[tuple[str, str]]:
    """The frames of a stream: the name of the event, if any, and its data."""
    response = http.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    frames = []
    for frame in response.text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in frame.splitlines())
        assert "data" in fields
        assert set(fields) <= {"event", "data"}, "nothing else belongs to a frame"
        frames.append((fields.get("event", ""), fields["data"]))
    return frames


def test_trap_01_the_error_of_a_healthy_job_is_null(trained: Trained) -> None:
    assert trained.created["error"] is None
    assert trained.raw["error"] is None


def test_trap_02_hyperparameters_are_an_object_on_every_job(new_job, http, server) -> None:
    method = {"type": "supervised"}
    for job in (new_job(), new_job(hyperparameters=None), new_job(method=method)):
        JOB.move(server.context.stores.jobs, job["id"], "cancelled")
        again = http.get(f"/fine_tuning/jobs/{job['id']}").json()
        for shown in (job, again):
            assert shown["hyperparameters"] == shown["method"]["supervised"]["hyperparameters"]
            assert set(shown["hyperparameters"]) == {
                "n_epochs",
                "batch_size",
                "learning_rate_multiplier",
            }


def test_trap_03_a_paused_job_is_paused_and_lenient_clients_read_it(
    new_job, http: httpx2.Client, loose: OpenAI, client: OpenAI, server
) -> None:
    job = new_job()["id"]
    queue_validated(server.context.stores, job)
    assert http.post(f"/fine_tuning/jobs/{job}/pause").json()["status"] == "paused"
    assert loose.fine_tuning.jobs.retrieve(job).status == "paused"
    with pytest.raises(APIResponseValidationError):
        client.fine_tuning.jobs.retrieve(job)
    assert loose.fine_tuning.jobs.resume(job).status == "queued"
    JOB.move(server.context.stores.jobs, job, "cancelled")


def test_trap_04_the_purpose_evals_is_accepted_and_strict_clients_cannot_read_it(
    client: OpenAI, loose: OpenAI
) -> None:
    file = loose.files.create(file=b"{}\n", purpose="evals")
    assert file.purpose == "evals"
    with pytest.raises(APIResponseValidationError):
        client.files.retrieve(file.id)
    assert loose.files.delete(file.id).deleted


def test_trap_05_permissions_page_by_last_id_and_have_an_order_of_their_own(
    trained: Trained,
) -> None:
    permissions, model = trained.client.fine_tuning.checkpoints.permissions, trained.raw
    name = model["fine_tuned_model"]
    made = permissions.create(name, project_ids=[f"proj_{n}" for n in range(3)])
    assert made.object == "list"
    ids = [item.id for item in made]
    assert len(ids) == 3
    pages = permissions.list(name, limit=1, order="ascending")
    assert sorted(item.id for item in pages) == sorted(ids)
    ascending = [item.id for item in permissions.list(name, limit=1, order="ascending")]
    assert [item.id for item in permissions.list(name, limit=2, order="descending")] == (
        ascending[::-1]
    )
    assert [item.id for item in permissions.list(name)] == ascending[::-1]
    raw = permissions.with_raw_response.list(name, limit=2).http_response.json()
    assert raw["last_id"] == raw["data"][-1]["id"]
    assert raw["has_more"] is True
    assert permissions.delete(ids[0], fine_tuned_model_checkpoint=name).deleted
    with pytest.raises(BadRequestError):
        permissions.list(name, order="asc")  # type: ignore[arg-type]


def test_trap_06_lists_have_their_own_default_limits(new_job, http, server) -> None:
    jobs = server.context.stores.jobs
    first, *_ = [new_job()["id"] for _ in range(21)]
    for number in range(25):
        jobs.add_event(first, f"{number}")
        jobs.add_checkpoint(first, model=f"ft:a:b:c:{number}", step=number, metrics={})
    lengths = {"jobs": 20, f"jobs/{first}/events": 20, f"jobs/{first}/checkpoints": 10}
    for path, length in lengths.items():
        page = http.get(f"/fine_tuning/{path}").json()
        assert (len(page["data"]), page["has_more"]) == (length, True)
    documented = openapi_document(server.app)["paths"]["/v1/files"]["get"]["parameters"]
    (limit,) = (parameter for parameter in documented if parameter["name"] == "limit")
    assert limit["schema"]["default"] == limit["schema"]["maximum"] == 10_000


def test_trap_06_stored_completions_are_oldest_first(http: httpx2.Client) -> None:
    ids = [http.post("/chat/completions", json={**CHAT, "store": True}).json()["id"]
           for _ in range(21)]  # fmt: skip
    page = http.get("/chat/completions").json()
    assert [item["id"] for item in page["data"]] == ids[:20]
    assert page["has_more"] is True


def test_trap_06_permissions_have_ten_per_page(trained: Trained) -> None:
    permissions, name = trained.client.fine_tuning.checkpoints.permissions, trained.raw
    permissions.create(name["fine_tuned_model"], project_ids=[f"p{n}" for n in range(11)])
    assert len(permissions.list(name["fine_tuned_model"]).data) == 10


def test_trap_07_top_logprobs_is_present_without_being_requested(trained: Trained) -> None:
    raw = trained.client.chat.completions.with_raw_response.create(
        model="gpt-3.5-turbo", messages=MESSAGES, logprobs=True, max_tokens=3
    )
    logprobs = raw.http_response.json()["choices"][0]["logprobs"]
    assert logprobs["refusal"] is None
    assert logprobs["content"]
    assert all(token["top_logprobs"] == [] for token in logprobs["content"])


def test_trap_07_responses_have_the_keys_that_are_easily_forgotten(http: httpx2.Client) -> None:
    body = {"model": "gpt-3.5-turbo", "input": "hi"}
    response = http.post("/responses", json=body).json()
    assert set(response["usage"]["input_tokens_details"]) >= {"cached_tokens", "cache_write_tokens"}
    (part,) = response["output"][0]["content"]
    assert (part["annotations"], part["logprobs"]) == ([], [])
    events = [(name, json.loads(data)) for name, data in events_of(http, "/responses", body)]
    texts = [event for name, event in events if name.startswith("response.output_text.")]
    assert len(texts) >= 2
    assert all(event["logprobs"] == [] for event in texts)


def test_trap_08_the_strict_client_misses_what_the_schemas_catch(
    trained: Trained,
) -> None:
    for wrong in ({"created_at": "12"}, {"created_at": 12.0}, {"finished_at": ...}):
        reply = {**trained.raw, **wrong}
        reply = {key: value for key, value in reply.items() if value is not ...}
        FineTuningJob.model_validate(reply)
        with pytest.raises(AssertionError):
            schemas.check(reply, "/v1/fine_tuning/jobs/x")
    with pytest.raises(ValueError, match="created_at"):
        FineTuningJob.model_validate({**trained.raw, "created_at": 1.5})


def test_trap_09_our_schemas_need_no_translation(server) -> None:
    def keys(node: Any) -> Iterator[tuple[str, Any]]:
        for key, value in node.items() if isinstance(node, dict) else ():
            yield key, value
            yield from keys(value)
        for item in node if isinstance(node, list) else ():
            yield from keys(item)

    ours = [schemas.OBJECTS, schemas.LISTS, schemas.PLAIN, schemas.RESPONSE_EVENTS]
    for key, value in keys([*ours, openapi_document(server.app)]):
        assert key != "nullable"
        assert key not in ("exclusiveMinimum", "exclusiveMaximum") or not isinstance(value, bool)


def test_trap_10_cancel_and_delete_take_an_empty_body_that_is_called_json(
    new_job, http: httpx2.Client, client: OpenAI
) -> None:
    headers = {"content-type": "application/json"}
    job = new_job()["id"]
    assert http.post(f"/fine_tuning/jobs/{job}/cancel", headers=headers).status_code == 200
    file = client.files.create(file=b"{}\n", purpose="fine-tune").id
    assert http.delete(f"/files/{file}", headers=headers).json()["deleted"] is True


def test_trap_10_pause_and_resume_take_an_empty_body_that_is_called_json(
    new_job, http: httpx2.Client, server
) -> None:
    headers = {"content-type": "application/json"}
    job = new_job()["id"]
    JOB.move(server.context.stores.jobs, job, "queued")
    for action in ("pause", "resume", "cancel"):
        response = http.post(f"/fine_tuning/jobs/{job}/{action}", headers=headers)
        assert response.status_code == 200, response.text


def test_trap_11_an_ended_object_is_a_400_because_a_409_would_be_retried(
    new_job, http: httpx2.Client
) -> None:
    job = new_job()["id"]
    assert http.post(f"/fine_tuning/jobs/{job}/cancel").status_code == 200
    assert http.post(f"/fine_tuning/jobs/{job}/cancel").status_code == 400


def test_trap_11_a_retried_post_creates_no_second_job(http: httpx2.Client, file_id: str) -> None:
    body = {"model": "gpt-3.5-turbo", "training_file": file_id, "suffix": "retried"}

    def attempt(number: int) -> str:
        headers = {"x-stainless-retry-count": str(number)}
        return http.post("/fine_tuning/jobs", json=body, headers=headers).json()["id"]

    first = attempt(0)
    assert attempt(1) == first
    assert attempt(2) == first
    assert attempt(0) != first, "two requests create two jobs"


def test_trap_12_a_training_file_needs_no_name(client: OpenAI) -> None:
    file = client.files.create(file=b'{"messages": []}\n', purpose="fine-tune")
    assert file.filename == "upload"
    job = client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file.id)
    assert job.training_file == file.id


def test_trap_13_the_file_may_come_first_and_in_chunks_without_a_length(
    http: httpx2.Client,
) -> None:
    content = b'{"messages": []}\n' * 1000
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n" + content + b"\r\n"
        b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b--\r\n'
    )
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = http.post("/files", content=pieces, headers=headers)
    assert "content-length" not in response.request.headers
    assert response.json()["bytes"] == len(content)
    assert http.get(f"/files/{response.json()['id']}/content").content == content


def test_trap_14_a_slash_in_a_name_does_not_split_the_path(
    loose: OpenAI, http: httpx2.Client, file_id: str
) -> None:
    with pytest.raises(NotFoundError, match="ft:a/b:c:d:e"):
        loose.models.retrieve("ft:a/b:c:d:e")
    error = http.get("/models/ft%3Aa%2Fb%3Ac%3Ad%3Ae").json()["error"]
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert http.get(f"/files/{file_id}/content").content == b"{}\n"


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "gpt-3.5-turbo", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "gpt-3.5-turbo", "messages": [], "temperature": NaN}',
        b'{"model": "gpt-3.5-turbo", "messages": [], "temperature": Infinity}',
        b'{"model": "gpt-3.5-turbo", "messages": ' + b"[" * 100_000,
    ],
)
def test_trap_15_what_pythons_json_accepts_is_a_400(http: httpx2.Client, body: bytes) -> None:
    assert http.post("/chat/completions", content=body).status_code == 400


def test_trap_15_no_response_contains_nan_or_infinity(new_job, http: httpx2.Client, server) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    job, nothing = new_job()["id"], {"train_loss": math.nan, "valid_loss": math.inf}
    server.context.stores.jobs.add_event(job, "Step 1/1", type="metrics", data=nothing)
    server.context.stores.jobs.add_checkpoint(job, model="ft:a:b:c:d", step=1, metrics=nothing)
    for part in ("events", "checkpoints"):
        text = http.get(f"/fine_tuning/jobs/{job}/{part}").text
        json.loads(text, parse_constant=refuse)


def test_trap_16_none_of_fastapis_own_responses_is_left(http: httpx2.Client) -> None:
    wrong = http.post("/chat/completions", json={**CHAT, "n": True})
    answers = {
        400: [wrong, http.get("/files", params={"limit": "x"}), http.post("/chat/completions")],
        404: [http.get("/nothing"), http.get("/files/", follow_redirects=False)],
        405: [http.put("/files")],
    }
    for status, responses in answers.items():
        for response in responses:
            assert response.status_code == status
            assert set(response.json()) == {"error"}
    assert wrong.json()["error"]["code"] == "invalid_type"


def test_trap_17_a_chats_frames_hold_data_only_and_end_with_done(http: httpx2.Client) -> None:
    body = {**CHAT, "n": 2, "stream_options": {"include_usage": True}}
    frames = events_of(http, "/chat/completions", body)
    assert all(name == "" for name, _ in frames)
    assert frames[-1][1] == "[DONE]"
    chunks = [json.loads(data) for _, data in frames[:-1]]
    assert chunks[0]["choices"][0]["index"] == 0
    assert [chunk["choices"] for chunk in chunks].index([]) == len(chunks) - 1
    assert chunks[-1]["usage"]["total_tokens"] > 0


def test_trap_17_a_responses_events_are_named_and_end_without_done(http: httpx2.Client) -> None:
    frames = events_of(http, "/responses", {"model": "gpt-3.5-turbo", "input": "hi"})
    events = [json.loads(data) for _, data in frames]
    assert [name for name, _ in frames] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (frames[0][0], frames[-1][0]) == ("response.created", "response.completed")


def test_trap_18_a_stream_does_not_depend_on_the_accept_header(http: httpx2.Client) -> None:
    for accept in ("application/json", "*/*", "text/html"):
        headers = {"accept": accept}
        stream = http.post("/chat/completions", json={**CHAT, "stream": True}, headers=headers)
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert http.get("/models", headers=headers).headers["content-type"] == "application/json"


def test_trap_19_a_complete_reply_ends_with_stop_so_that_the_helpers_work(trained: Trained) -> None:
    name = trained.raw["fine_tuned_model"]
    completions = trained.client.chat.completions
    assert completions.parse(model=name, messages=MESSAGES).choices[0].finish_reason == "stop"
    with completions.stream(model=name, messages=MESSAGES, max_tokens=50) as stream:
        assert stream.get_final_completion().choices[0].message.content in LABELS


def test_trap_19_a_truncated_reply_has_reason_length(trained: Trained) -> None:
    request: dict[str, Any] = {"model": "gpt-3.5-turbo", "messages": MESSAGES, "max_tokens": 1}
    completions = trained.client.chat.completions
    assert completions.create(**request).choices[0].finish_reason == "length"
    with (
        completions.stream(**request) as stream,
        pytest.raises(openai.LengthFinishReasonError),
    ):
        stream.get_final_completion()


def test_trap_20_embeddings_are_requested_in_base64(trained: Trained) -> None:
    fields = {"model": "text-embedding-3-small", "input": "What a day"}
    url = f"{trained.client.base_url}embeddings"
    headers = {"Authorization": f"Bearer {KEY}"}

    def vector(kind: str) -> Any:
        body = {**fields, "encoding_format": kind}
        return httpx2.post(url, json=body, headers=headers).json()["data"][0]["embedding"]

    floats, coded = vector("float"), vector("base64")
    assert isinstance(coded, str)
    with OpenAI(base_url=trained.client.base_url, api_key=KEY) as plain:
        decoded = plain.embeddings.create(**fields).data[0].embedding
    assert decoded == pytest.approx(floats, abs=1e-6)
    assert len(base64.b64decode(coded)) == 4 * len(floats)


def test_trap_21_the_result_file_is_base64_of_a_csv(trained: Trained) -> None:
    (result,) = trained.raw["result_files"]
    file = trained.client.files.retrieve(result)
    assert (file.filename, file.purpose) == ("step_metrics.csv", "fine-tune-results")
    assert file.status == "processed"
    table = base64.b64decode(trained.client.files.content(result).read(), validate=True).decode()
    assert table.splitlines()[0] == (
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    )
    (metrics, *_) = (
        event.data
        for event in trained.client.fine_tuning.jobs.list_events(trained.job.id, limit=100)
        if event.type == "metrics"
    )
    assert "train_mean_token_accuracy" in metrics  # type: ignore[operator]
    assert "train_accuracy" not in metrics  # type: ignore[operator]


def test_trap_22_every_checkpoint_replies_and_the_last_has_the_final_name(
    trained: Trained,
) -> None:
    checkpoints = trained.client.fine_tuning.jobs.checkpoints.list(trained.job.id).data
    assert 1 < len(checkpoints) <= 3
    last, *earlier = checkpoints
    assert last.fine_tuned_model_checkpoint == trained.job.fine_tuned_model
    names = [checkpoint.fine_tuned_model_checkpoint for checkpoint in earlier]
    for checkpoint, name in zip(earlier, names, strict=True):
        assert name.endswith(f":ckpt-step-{checkpoint.step_number}")
    own_ids = {name.split(":")[4] for name in (last.fine_tuned_model_checkpoint, *names)}
    assert len(own_ids) == len(checkpoints)
    for name in (last.fine_tuned_model_checkpoint, *names):
        reply = trained.client.chat.completions.create(model=name, messages=MESSAGES)
        assert reply.choices[0].message.content in LABELS


def test_trap_23_a_models_name_has_five_parts_with_an_empty_one_for_no_suffix(
    trained: Trained,
) -> None:
    kind, base, organization, suffix, own = trained.raw["fine_tuned_model"].split(":")
    assert (kind, base, suffix) == ("ft", "gpt-3.5-turbo-0125", "")
    assert organization
    assert len(own) == 8


def test_trap_24_auto_becomes_numbers_in_both_places(trained: Trained) -> None:
    assert set(trained.created["hyperparameters"].values()) == {"auto"}
    used = trained.raw["hyperparameters"]
    assert all(isinstance(value, int | float) for value in used.values())
    assert trained.raw["method"]["supervised"]["hyperparameters"] == used
    assert trained.raw["finished_at"] is not None


def test_trap_24_auto_stays_when_the_file_is_refused(trained: Trained, tmp_path: Path) -> None:
    path = training_file(tmp_path, examples=3)
    file = trained.client.files.create(file=path, purpose="fine-tune")
    job = trained.client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file.id)
    job = wait(trained.client, job.id)
    assert job.status == "failed"
    assert set(job.hyperparameters.to_dict().values()) == {"auto"}
    assert job.finished_at is None


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (lambda lines: lines[:5], "invalid_n_examples"),
        (lambda lines: [line.replace('"assistant"', '"x"') for line in lines],
         "invalid_training_file"),
        (lambda lines: [line.replace('{"messages"', '{"colour": 1, "messages"') for line in lines],
         None),
    ],
)  # fmt: skip
def test_trap_25_faults_of_the_data_are_reported_by_the_job(
    trained: Trained, tmp_path: Path, broken: Any, code: str | None
) -> None:
    lines = broken(training_file(tmp_path).read_text().splitlines())
    file = trained.client.files.create(file="\n".join(lines).encode(), purpose="fine-tune")
    job = trained.client.fine_tuning.jobs.create(model="gpt-3.5-turbo", training_file=file.id)
    job = wait(trained.client, job.id)
    assert job.status == "failed"
    assert job.error
    assert job.error.param == "training_file"
    assert job.error.code == code or (
        code is None and job.error.code in ("invalid_training_file", "invalid_file_format")
    )
    levels = {event.level for event in trained.client.fine_tuning.jobs.list_events(job.id)}
    assert levels <= {"info", "warn", "error"}


def test_trap_26_an_upload_is_processed_at_once(client: OpenAI) -> None:
    file = client.files.create(file=b"{}\n", purpose="fine-tune")
    begun = time.monotonic()
    assert client.files.wait_for_processing(file.id).status == "processed"
    assert time.monotonic() - begun < 5  # its pause between two polls


def test_trap_27_a_list_ends_and_an_unknown_cursor_is_not_the_first_page(
    new_job, client: OpenAI
) -> None:
    made = [new_job(metadata={"trap": "27"})["id"] for _ in range(5)]
    jobs = client.fine_tuning.jobs
    assert [job.id for job in jobs.list(limit=2, metadata={"trap": "27"})] == made[::-1]
    for cursor in ("ftjob-unknown", client.files.list().data[0].id):
        with pytest.raises(NotFoundError):
            jobs.list(after=cursor)


def test_trap_28_explicit_nulls_are_absent(new_job, http: httpx2.Client, server) -> None:
    names = ("suffix", "seed", "validation_file", "integrations", "metadata", "method")
    assert new_job(**dict.fromkeys(names))["object"] == "fine_tuning.job"
    (body,) = (
        body_model_of(route)[0].model_json_schema()
        for method, path, route in api_routes(server.app)
        if (method, path) == ("POST", "/v1/chat/completions")
    )
    nulls = dict.fromkeys(set(body["properties"]) - set(body["required"]))
    assert {"temperature", "tools", "user", "store", "audio"} <= set(nulls)
    assert http.post("/chat/completions", json={**nulls, **CHAT}).status_code == 200


def test_trap_29_stored_messages_have_their_real_roles(http: httpx2.Client) -> None:
    conversation = [{"role": "system", "content": "Be brief."}, *MESSAGES]
    body = {**CHAT, "messages": conversation, "store": True}
    completion = http.post("/chat/completions", json=body).json()["id"]
    stored = http.get(f"/chat/completions/{completion}/messages").json()["data"]
    assert [message["role"] for message in stored][:2] == ["system", "user"]


def test_trap_30_responses_have_the_media_type_that_node_reads(http: httpx2.Client, server) -> None:
    for method, path, _ in api_routes(server.app):
        response = http.request(method, path.removeprefix("/v1"), content=b"{}")
        kind = response.headers["content-type"]
        assert kind == "application/json", f"{method} {path}: {kind}"


def test_trap_31_a_training_job_blocks_nobody(trained: Trained) -> None:
    client, file = trained.client, trained.job.training_file
    job = client.fine_tuning.jobs.create(
        model="gpt-3.5-turbo",
        training_file=file,
        hyperparameters={"n_epochs": 50, "batch_size": 1},
    )
    wait(client, job.id, lambda job: job.status == "running")
    begun = time.monotonic()
    for _ in range(5):
        client.models.list()
    client.chat.completions.create(model=str(trained.job.fine_tuned_model), messages=MESSAGES)
    assert time.monotonic() - begun < 10
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running", "it had time to end"
    client.fine_tuning.jobs.cancel(job.id)
    assert messages(client, job.id)


def test_trap_31_a_stream_that_is_closed_early_frees_its_slot(client: OpenAI, server) -> None:
    endless: Any = [{"role": "user", "content": "go on for ever"}]
    streams = [
        client.chat.completions.create(model="gpt-3.5-turbo", messages=endless, stream=True)
        for _ in range(3)
    ]
    running = server.chat_model.generations[-3:]
    for stream in streams:
        next(iter(stream))
        stream.close()
    assert all(generation.cancelled.wait(5) for generation in running)


def test_trap_32_nothing_of_ours_needs_httpx() -> None:
    source = Path(emojitune.__file__).parent
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Import():
                    imported = [alias.name for alias in node.names]
                case ast.ImportFrom():
                    imported = [str(node.module)]
                case _:
                    imported = []
            assert "httpx" not in {name.split(".")[0] for name in imported}, path
