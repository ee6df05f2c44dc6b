import asyncio
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI
from servers import KEY

from emojitune.jobs.publish import model_name
from emojitune.jobs.states import JOB, queue_validated
from emojitune.store.jobs import JobError

JOB_KEYS = {
    "id",
    "object",
    "created_at",
    "finished_at",
    "status",
    "model",
    "fine_tuned_model",
    "organization_id",
    "training_file",
    "validation_file",
    "result_files",
    "seed",
    "hyperparameters",
    "method",
    "trained_tokens",
    "estimated_finish",
    "error",
    "integrations",
    "metadata",
    "user_provided_suffix",
    "served_by",
}


GRADER = {
    "type": "string_check",
    "name": "same",
    "input": "{{sample.output_text}}",
    "reference": "{{item.label}}",
    "operation": "eq",
}


def dpo(**hyperparameters: Any) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


def reinforcement(grader: Any = GRADER, **hyperparameters: Any) -> dict[str, Any]:
    part = {"grader": grader, "hyperparameters": hyperparameters}
    return {"type": "reinforcement", "reinforcement": part}


@pytest.fixture(scope="module")
def file_id(client: OpenAI) -> str:
    return client.files.create(file=b"{}\n", purpose="fine-tune").id


@pytest.fixture
def create(client: OpenAI, file_id: str):
    def create_job(**changes: Any):
        fields = {"model": "gpt-3.5-turbo", "training_file": file_id, **changes}
        return client.fine_tuning.jobs.create(**fields)

    return create_job


def test_a_job_is_created_as_by_the_notebook(create, client: OpenAI, file_id: str, server) -> None:
    woken = server.dispatcher.wake_count
    job = create(hyperparameters={"n_epochs": 3}, suffix="emoji-v1")
    fields = job.to_dict()
    assert set(fields) == JOB_KEYS
    assert fields["status"] == "validating_files"
    assert fields["model"] == "gpt-3.5-turbo-0125"
    assert fields["training_file"] == file_id
    hyperparameters = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert fields["hyperparameters"] == hyperparameters
    assert fields["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": hyperparameters},
    }
    assert fields["error"] is None
    assert fields["result_files"] == fields["integrations"] == []
    assert fields["served_by"] == "smollm2-135m-instruct"
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    assert server.dispatcher.wake_count == woken + 1
    events = client.fine_tuning.jobs.list_events(job.id, limit=50)
    assert [event.message for event in events] == [
        f"Validating training file: {file_id}",
        f"Created fine-tuning job: {job.id}",
    ]


def test_hyperparameters_of_the_method_win(create) -> None:
    job = create(
        hyperparameters={"n_epochs": 3, "batch_size": 8},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 5, "learning_rate_multiplier": 2}},
            "dpo": {"hyperparameters": {"beta": 0.1}},
        },
    )
    assert job.hyperparameters.to_dict() == {
        "n_epochs": 5,
        "batch_size": 8,
        "learning_rate_multiplier": 2,
    }


def test_trap_28_explicit_nulls_are_absent(create) -> None:
    job = create(suffix=None, seed=None, validation_file=None, integrations=None, metadata=None)
    assert job.metadata is None
    assert isinstance(job.seed, int)


@pytest.mark.parametrize(
    ("changes", "param", "code", "words"),
    [
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs",
         "integer_above_max_value", "Expected a value <= 50, but got 51 instead"),
        ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs",
         "invalid_type", "expected an integer, but got a boolean"),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size",
         "integer_below_min_value", "Expected a value >= 1"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}},
         "hyperparameters.learning_rate_multiplier", "decimal_below_min_value", "> 0"),
        ({"hyperparameters": {"epochs": 3}}, "hyperparameters.epochs",
         "unknown_parameter", "Unknown parameter: 'hyperparameters.epochs'."),
        ({"extra_body": {"epochs": 3}}, "epochs",
         "unknown_parameter", "Unrecognized request argument supplied: epochs"),
        ({"suffix": ""}, "suffix", "empty_string", "empty string"),
        ({"suffix": "x" * 65}, "suffix", "string_above_max_length", "maximum length 64"),
        ({"seed": -1}, "seed", "integer_below_min_value", ">= 0"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata",
         "object_above_max_length", "maximum length 16"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_type", "expected a string"),
        ({"method": {"type": "dpo"}}, "method.type", "unsupported_value", "isn't built here"),
        ({"method": {"type": "ppo"}}, "method.type", "invalid_value", "'supervised'"),
        ({"method": {}}, "method.type", "missing_required_parameter", "method.type"),
        ({"method": dpo(beta=0)}, "method.dpo.hyperparameters.beta",
         "decimal_below_min_value", "> 0"),
        ({"method": dpo(beta=2.5)}, "method.dpo.hyperparameters.beta",
         "decimal_above_max_value", "<= 2"),
        ({"method": dpo(n_epochs=51)}, "method.dpo.hyperparameters.n_epochs",
         "integer_above_max_value", "<= 50"),
        ({"method": dpo(eval_interval=1)}, "method.dpo.hyperparameters.eval_interval",
         "unknown_parameter", "Unknown parameter"),
        ({"method": {"type": "reinforcement"}}, "method.reinforcement",
         "missing_required_parameter", "Missing required parameter: 'method.reinforcement'"),
        ({"method": {"type": "reinforcement", "reinforcement": {}}},
         "method.reinforcement.grader", "missing_required_parameter", "grader"),
        ({"method": reinforcement()}, "method.type", "unsupported_value", "isn't built here"),
        ({"method": reinforcement(compute_multiplier=1e-05)},
         "method.reinforcement.hyperparameters.compute_multiplier",
         "decimal_below_min_value", "> 1e-05"),
        ({"method": reinforcement(compute_multiplier=11)},
         "method.reinforcement.hyperparameters.compute_multiplier",
         "decimal_above_max_value", "<= 10"),
        ({"method": reinforcement(eval_interval=0)},
         "method.reinforcement.hyperparameters.eval_interval", "integer_below_min_value", ">= 1"),
        ({"method": reinforcement(eval_samples="many")},
         "method.reinforcement.hyperparameters.eval_samples", "invalid_type", "an integer"),
        ({"method": reinforcement(reasoning_effort="huge")},
         "method.reinforcement.hyperparameters.reasoning_effort", "invalid_value", "'medium'"),
        ({"method": reinforcement(grader={"type": "vibes"})},
         "method.reinforcement.grader.type", "invalid_value", "'vibes'"),
        ({"method": reinforcement(grader={**GRADER, "operation": "gt"})},
         "method.reinforcement.grader.operation", "invalid_value", "'ilike'"),
        ({"method": reinforcement(grader={"name": "x"})},
         "method.reinforcement.grader.type", "missing_required_parameter", "grader.type"),
        ({"integrations": [{"type": "wandb"}]}, "integrations[0].wandb",
         "missing_required_parameter", "integrations[0].wandb"),
        ({"integrations": [{"type": "wandb", "wandb": {}}]}, "integrations[0].wandb.project",
         "missing_required_parameter", "integrations[0].wandb.project"),
        ({"integrations": [{"type": "mlflow", "wandb": {"project": "x"}}]},
         "integrations[0].type", "invalid_value", "'wandb'"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}] * 6}, "integrations",
         "array_above_max_length", "maximum length 5"),
        ({"training_file": "file-gone"}, "training_file", None, "'file-gone' does not exist"),
        ({"validation_file": "file-gone"}, "validation_file", None, "does not exist"),
        ({"training_file": 5}, "training_file", "invalid_type", "expected a string"),
    ],
)  # fmt: skip
def test_invalid_requests_name_the_fault(
    create, changes: dict[str, Any], param: str, code: str | None, words: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        create(**changes)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert words in caught.value.message


def test_a_missing_model_is_named(http: httpx2.Client) -> None:
    error = http.post("/fine_tuning/jobs", json={"training_file": "file-x"}).json()["error"]
    assert (error["param"], error["code"]) == ("model", "missing_required_parameter")


def test_a_file_of_another_purpose_is_refused(create, client: OpenAI) -> None:
    other = client.files.create(file=b"x", purpose="user_data").id
    with pytest.raises(BadRequestError, match="needs the purpose fine-tune"):
        create(training_file=other)


def test_an_unknown_model_is_refused_with_a_list_of_models(create) -> None:
    with pytest.raises(NotFoundError, match="smollm2-135m-instruct") as caught:
        create(model="gpt-99")
    assert caught.value.code == "model_not_found"


def test_pages_contain_each_job_once_and_can_be_filtered_by_metadata(
    create, client: OpenAI
) -> None:
    marks = [{"team": "a b", "n[x]": str(n)} for n in range(5)]
    ids = [create(metadata=mark).id for mark in marks][::-1]
    jobs = client.fine_tuning.jobs
    assert [job.id for job in jobs.list(metadata={"team": "a b"}, limit=2)] == ids
    assert [job.id for job in jobs.list(metadata={"team": "a b", "n[x]": "3"})] == [ids[1]]
    assert [job.id for job in jobs.list(limit=3)][:5] == ids
    plain = create().id
    found = [job.id for job in jobs.list(extra_query={"metadata": "null"})]
    assert found[0] == plain
    assert not set(found) & set(ids)


def test_a_job_is_cancelled_once(create, client: OpenAI) -> None:
    job = create()
    cancelled = client.fine_tuning.jobs.cancel(job.id)
    assert cancelled.status == "cancelled"
    assert cancelled.finished_at is not None
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert newest.message == "Fine-tuning job was cancelled"
    with pytest.raises(BadRequestError, match="this one is cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


def test_trap_10_cancel_takes_an_empty_body_that_is_called_json(
    create, http: httpx2.Client
) -> None:
    headers = {"content-type": "application/json"}
    response = http.post(f"/fine_tuning/jobs/{create().id}/cancel", headers=headers)
    assert response.json()["status"] == "cancelled"


def test_a_failed_job_has_the_reason(create, client: OpenAI, server) -> None:
    job = create()
    error = JobError("invalid_n_examples", "Training file has 7 example(s)", "training_file")
    JOB.move(server.context.stores.jobs, job.id, "failed", error=error)
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error.to_dict() == {
        "code": "invalid_n_examples",
        "message": "Training file has 7 example(s)",
        "param": "training_file",
    }


def test_trap_24_a_job_has_its_hyperparameters_in_both_places(
    create, client: OpenAI, server
) -> None:
    job = create()
    used = {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.8}
    server.context.stores.jobs.update(
        job.id, hyperparameters=used, trained_tokens=9, result_files=["file-r"]
    )
    shown = client.fine_tuning.jobs.retrieve(job.id)
    assert shown.hyperparameters.to_dict() == used
    assert shown.method.supervised.hyperparameters.to_dict() == used
    assert (shown.trained_tokens, shown.result_files) == (9, ["file-r"])


def test_only_a_running_job_has_an_estimated_finish(create, client: OpenAI, server) -> None:
    jobs = server.context.stores.jobs
    job = create()
    for status, shown in (("queued", None), ("running", 4000000000), ("queued", None)):
        JOB.move(jobs, job.id, status)
        jobs.update(job.id, estimated_finish=4000000000)  # as a worker does that is late to stop
        assert client.fine_tuning.jobs.retrieve(job.id).estimated_finish == shown
    client.fine_tuning.jobs.cancel(job.id)
    jobs.update(job.id, estimated_finish=4000000000)
    assert client.fine_tuning.jobs.retrieve(job.id).estimated_finish is None


def test_events_page_through_the_sdk(create, client: OpenAI, server) -> None:
    job = create()
    numbers = {"step": 1, "train_loss": float("nan"), "total_steps": 9}
    for step in range(7):
        server.context.stores.jobs.add_event(job.id, f"Step {step}", type="metrics", data=numbers)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in events[:7]] == [f"Step {step}" for step in range(6, -1, -1)]
    assert len(events) == len({event.id for event in events}) == 9
    assert events[0].to_dict()["data"] == {"step": 1, "train_loss": None, "total_steps": 9}
    assert events[-1].to_dict()["data"] == {}
    with pytest.raises(NotFoundError):
        client.fine_tuning.jobs.list_events(job.id, after="ftevent-gone")


def test_checkpoints_omit_unknown_metrics(create, client: OpenAI, server) -> None:
    job = create()
    jobs = server.context.stores.jobs
    metrics = {"step": 10, "train_loss": 0.5, "valid_loss": None, "full_valid_loss": float("nan")}
    jobs.add_checkpoint(job.id, model="ft:a:b:c:d:ckpt-step-10", step=10, metrics=metrics)
    jobs.add_checkpoint(job.id, model="ft:a:b:c:e", step=20, metrics={"train_loss": 0.25})
    page = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert [item.fine_tuned_model_checkpoint for item in page] == [
        "ft:a:b:c:e",
        "ft:a:b:c:d:ckpt-step-10",
    ]
    assert page.data[1].to_dict()["metrics"] == {"step": 10, "train_loss": 0.5}
    paged = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    assert [item.step_number for item in paged] == [20, 10]


def test_a_job_without_checkpoints_has_an_empty_list(create, http: httpx2.Client) -> None:
    assert http.get(f"/fine_tuning/jobs/{create().id}/checkpoints").json() == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


def test_unknown_jobs_have_openais_error(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    for call in (
        jobs.retrieve,
        jobs.cancel,
        jobs.pause,
        jobs.resume,
        jobs.list_events,
        jobs.checkpoints.list,
    ):
        with pytest.raises(NotFoundError, match="Could not find fine tune: ftjob-x") as caught:
            call("ftjob-x")
        assert (caught.value.code, caught.value.param) == ("fine_tune_not_found", "fine_tune_id")


def test_a_request_may_configure_all_methods(create) -> None:
    job = create(
        method={
            "type": "supervised",
            "dpo": {"hyperparameters": {"beta": "auto", "batch_size": "auto"}},
            "reinforcement": {
                "grader": GRADER,
                "hyperparameters": {"compute_multiplier": "auto", "reasoning_effort": "default"},
            },
            "supervised": {"hyperparameters": {"n_epochs": "auto", "batch_size": "auto"}},
        },
    )
    auto = dict.fromkeys(("n_epochs", "batch_size", "learning_rate_multiplier"), "auto")
    assert job.method.to_dict() == {
        "type": "supervised",
        "supervised": {"hyperparameters": auto},
    }
    assert job.hyperparameters.to_dict() == auto


def test_integrations_are_returned_with_all_keys(create) -> None:
    bare = {"type": "wandb", "wandb": {"project": "emoji"}}
    full = {
        "type": "wandb",
        "wandb": {"project": "emoji", "name": "first", "entity": "us", "tags": ["a", "b"]},
    }
    job = create(integrations=[bare, full])
    assert job.to_dict()["integrations"] == [
        {
            "type": "wandb",
            "wandb": {"project": "emoji", "name": None, "entity": None, "tags": []},
        },
        full,
    ]


def test_nulls_inside_objects_are_absent(http: httpx2.Client, file_id: str) -> None:
    body = {
        "model": "gpt-3.5-turbo",
        "training_file": file_id,
        "hyperparameters": None,
        "method": {"type": "supervised", "supervised": None, "dpo": None},
        "integrations": [{"type": "wandb", "wandb": {"project": "x", "name": None, "tags": None}}],
    }
    response = http.post("/fine_tuning/jobs", json=body)
    assert response.status_code == 200, response.text
    assert response.json()["hyperparameters"]["n_epochs"] == "auto"


def test_a_refused_job_is_not_created(create, client: OpenAI) -> None:
    before = client.fine_tuning.jobs.list(limit=1).data
    for method in (dpo(beta=0.1), reinforcement()):
        with pytest.raises(BadRequestError):
            create(method=method)
    assert client.fine_tuning.jobs.list(limit=1).data == before


def test_invalid_metadata_filters_are_refused(http: httpx2.Client) -> None:
    response = http.get("/fine_tuning/jobs", params={"metadata": "x"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "metadata"


@pytest.mark.parametrize(
    ("state", "then"),
    [("validating_files", "validating_files"), ("queued", "queued"), ("running", "queued")],
)
def test_a_job_is_paused_and_resumed(
    create, client: OpenAI, http: httpx2.Client, server, state: str, then: str
) -> None:
    job = create()
    if state != "validating_files":
        queue_validated(server.context.stores, job.id)
    if state == "running":
        JOB.move(server.context.stores.jobs, job.id, "running")
    woken = server.dispatcher.wake_count
    headers = {
        "content-type": "application/json"
    }  # without a body, as the official client sends it
    paused = http.post(f"/fine_tuning/jobs/{job.id}/pause", headers=headers).json()
    assert set(paused) == JOB_KEYS
    assert (paused["status"], paused["finished_at"]) == ("paused", None)
    again = http.post(f"/fine_tuning/jobs/{job.id}/pause", headers=headers)
    assert again.status_code == 400
    assert "this one is paused" in again.json()["error"]["message"]
    resumed = client.fine_tuning.jobs.resume(job.id)
    assert resumed.status == then
    with pytest.raises(BadRequestError, match=f"this one is {then}"):
        client.fine_tuning.jobs.resume(job.id)
    texts = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)][:2]
    assert texts == ["Fine-tuning job resumed", "Fine-tuning job paused"]
    assert server.dispatcher.wake_count == woken + 2


def test_trap_3_a_lenient_client_reads_a_paused_job(create, server) -> None:
    job = create()
    JOB.move(server.context.stores.jobs, job.id, "queued")
    with OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as loose:
        assert loose.fine_tuning.jobs.pause(job.id).status == "paused"
        assert loose.fine_tuning.jobs.list(limit=1).data[0].status == "paused"
        assert loose.fine_tuning.jobs.cancel(job.id).status == "cancelled"


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_an_ended_job_cannot_be_paused(create, client: OpenAI, server, action: str) -> None:
    job = create()
    JOB.move(server.context.stores.jobs, job.id, "cancelled")
    with pytest.raises(BadRequestError, match="this one is cancelled"):
        getattr(client.fine_tuning.jobs, action)(job.id)


def test_a_resumed_job_returns_to_its_earlier_state(create, client: OpenAI, server) -> None:
    job = create()
    with pytest.raises(BadRequestError, match="only a job that is paused can"):
        client.fine_tuning.jobs.resume(job.id)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "validating_files"


def test_the_async_client_does_the_same(server, file_id: str) -> None:
    async def go() -> None:
        async with AsyncOpenAI(
            base_url=server.url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client:
            jobs = client.fine_tuning.jobs
            made = await jobs.create(
                model="gpt-4o-mini", training_file=file_id, metadata={"by": "async"}
            )
            assert made.model == "gpt-4o-mini-2024-07-18"
            assert [job.id async for job in jobs.list(metadata={"by": "async"})] == [made.id]
            assert len([event async for event in jobs.list_events(made.id, limit=1)]) == 2
            assert (await jobs.cancel(made.id)).status == "cancelled"

    asyncio.run(go())


@pytest.mark.parametrize("limit", [0, -1, 10_001])
@pytest.mark.parametrize("path", ["", "/{job}/events", "/{job}/checkpoints"])
def test_limits_out_of_range_are_a_400(create, http: httpx2.Client, path: str, limit: int) -> None:
    target = "/fine_tuning/jobs" + path.format(job=create().id)
    response = http.get(target, params={"limit": limit})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "limit"


def test_trap_27_unknown_cursors_are_not_the_first_page(create, client: OpenAI) -> None:
    job, other = create(), create()
    event = client.fine_tuning.jobs.list_events(other.id).data[0].id
    for call in (
        lambda: client.fine_tuning.jobs.list(after="ftjob-gone"),
        lambda: client.fine_tuning.jobs.list_events(job.id, after=event),
        lambda: client.fine_tuning.jobs.checkpoints.list(job.id, after="ftckpt_gone"),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_traps_1_and_2_a_healthy_job_has_no_error_and_its_numbers(
    create, http: httpx2.Client
) -> None:
    shown = http.get(f"/fine_tuning/jobs/{create().id}").json()
    assert shown["error"] is None
    assert set(shown["hyperparameters"]) == {"n_epochs", "batch_size", "learning_rate_multiplier"}
    assert type(shown["created_at"]) is int
    assert shown["organization_id"] == "local"


def test_trap_23_every_fine_tuned_model_has_a_name_of_five_parts(create, server) -> None:
    for suffix in (None, "emoji-v1", "with: colons / and ü"):
        job = server.context.stores.jobs.get(create(suffix=suffix).id)
        name = model_name(job, "org/base", "local")
        assert len(name.split(":")) == 5
        assert (name.split(":")[3] == "") == (suffix is None)
        assert model_name(job, "org/base", "local", 7).endswith(":ckpt-step-7")


@pytest.mark.parametrize("value", [10**400, "1", [1], {}, True])
def test_a_number_is_a_number(create, value: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        create(hyperparameters={"learning_rate_multiplier": value})
    assert caught.value.param == "hyperparameters.learning_rate_multiplier"
    with pytest.raises(BadRequestError) as caught:
        create(seed=value)
    assert caught.value.param == "seed"


def test_metadata_is_bounded(create) -> None:
    assert create(metadata={"k" * 64: "v" * 512}).metadata == {"k" * 64: "v" * 512}
    for metadata in ({"k" * 65: "v"}, {"k": "v" * 513}):
        with pytest.raises(BadRequestError) as caught:
            create(metadata=metadata)
        assert caught.value.code == "string_above_max_length"
