from typing import Any

import httpx2
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from emojitune.jobs.states import move
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


@pytest.fixture(scope="module")
def file_id(client: OpenAI) -> str:
    return client.files.create(file=b"{}\n", purpose="fine-tune").id


@pytest.fixture
def create(client: OpenAI, file_id: str):
    def create_job(**changes: Any):
        fields = {"model": "gpt-3.5-turbo", "training_file": file_id, **changes}
        return client.fine_tuning.jobs.create(**fields)

    return create_job


def test_a_job_is_created_as_the_notebook_does_it(
    create, client: OpenAI, file_id: str, server
) -> None:
    woken = server.dispatcher.woken
    job = create(hyperparameters={"n_epochs": 3}, suffix="emoji-v1")
    fields = job.to_dict()
    assert set(fields) == JOB_KEYS
    assert fields["status"] == "validating_files"
    assert fields["model"] == "gpt-3.5-turbo-0125"
    assert fields["training_file"] == file_id
    asked = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": "auto"}
    assert fields["hyperparameters"] == asked
    assert fields["method"] == {"type": "supervised", "supervised": {"hyperparameters": asked}}
    assert fields["error"] is None
    assert fields["result_files"] == fields["integrations"] == []
    assert fields["served_by"] == "smollm2-135m-instruct"
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    assert server.dispatcher.woken == woken + 1
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


def test_explicit_nulls_are_absent(create) -> None:
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
        ({"method": {"type": "dpo"}}, "method.type", "unsupported_value", "isn't built here yet"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations",
         "unsupported_value", "aren't built here yet"),
        ({"training_file": "file-gone"}, "training_file", None, "'file-gone' does not exist"),
        ({"validation_file": "file-gone"}, "validation_file", None, "does not exist"),
        ({"training_file": 5}, "training_file", "invalid_type", "expected a string"),
    ],
)  # fmt: skip
def test_bad_requests_say_what_is_wrong(
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


def test_an_unknown_model_is_refused_with_those_there_are(create) -> None:
    with pytest.raises(NotFoundError, match="smollm2-135m-instruct") as caught:
        create(model="gpt-99")
    assert caught.value.code == "model_not_found"


def test_lists_meet_every_job_once_and_can_be_held_to_metadata(create, client: OpenAI) -> None:
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


def test_cancel_takes_an_empty_body_that_is_called_json(create, http: httpx2.Client) -> None:
    headers = {"content-type": "application/json"}
    response = http.post(f"/fine_tuning/jobs/{create().id}/cancel", headers=headers)
    assert response.json()["status"] == "cancelled"


def test_a_failed_job_says_why(create, client: OpenAI, server) -> None:
    job = create()
    error = JobError("invalid_n_examples", "Training file has 7 example(s)", "training_file")
    move(server.services.jobs, job.id, "failed", error=error)
    failed = client.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error.to_dict() == {
        "code": "invalid_n_examples",
        "message": "Training file has 7 example(s)",
        "param": "training_file",
    }


def test_a_job_shows_the_numbers_it_used_in_both_places(create, client: OpenAI, server) -> None:
    job = create()
    used = {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 1.8}
    server.services.jobs.update(
        job.id, hyperparameters=used, trained_tokens=9, result_files=["file-r"]
    )
    shown = client.fine_tuning.jobs.retrieve(job.id)
    assert shown.hyperparameters.to_dict() == used
    assert shown.method.supervised.hyperparameters.to_dict() == used
    assert (shown.trained_tokens, shown.result_files) == (9, ["file-r"])


def test_events_page_through_the_sdk(create, client: OpenAI, server) -> None:
    job = create()
    numbers = {"step": 1, "train_loss": float("nan"), "total_steps": 9}
    for step in range(7):
        server.services.jobs.add_event(job.id, f"Step {step}", type="metrics", data=numbers)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.message for event in events[:7]] == [f"Step {step}" for step in range(6, -1, -1)]
    assert len(events) == len({event.id for event in events}) == 9
    assert events[0].to_dict()["data"] == {"step": 1, "train_loss": None, "total_steps": 9}
    assert events[-1].to_dict()["data"] == {}
    with pytest.raises(NotFoundError):
        client.fine_tuning.jobs.list_events(job.id, after="ftevent-gone")


def test_checkpoints_leave_out_what_is_not_known(create, client: OpenAI, server) -> None:
    job = create()
    jobs = server.services.jobs
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


def test_unknown_jobs_read_as_openais(client: OpenAI) -> None:
    jobs = client.fine_tuning.jobs
    for ask in (jobs.retrieve, jobs.cancel, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(NotFoundError, match="Could not find fine tune: ftjob-x") as caught:
            ask("ftjob-x")
        assert (caught.value.code, caught.value.param) == ("fine_tune_not_found", "fine_tune_id")
