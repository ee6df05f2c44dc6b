"""The steps of fine-tuning, through the official SDK, against a fake API on a real port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_api import JOB, MODEL, FakeApi
from openai import OpenAI

from emojitune.errors import ConfigurationError, InvalidRequestError, ProviderError
from emojitune.labels import SYSTEM_PROMPT
from emojitune.workflow import fine_tune
from emojitune.workflow.progress import Progress


@pytest.fixture
def client(fake_api: FakeApi) -> Iterator[OpenAI]:
    with OpenAI(base_url=fake_api.url, api_key="k", max_retries=0) as client:
        yield client


def no_sleep(seconds: float) -> None:
    pass


def follow(client: OpenAI, reconnect_seconds: float = 60) -> list[Progress]:
    return list(fine_tune.follow(client, JOB, reconnect_seconds=reconnect_seconds, sleep=no_sleep))


def test_upload(client: OpenAI, fake_api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"messages": []}\n')
    assert fine_tune.upload(client, tmp_path / "train.jsonl").id == "file-1"
    assert b'{"messages": []}' in fake_api.uploaded
    assert b"fine-tune" in fake_api.uploaded


def test_upload_of_a_missing_file(client: OpenAI, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"gone\.jsonl cannot be read"):
        fine_tune.upload(client, tmp_path / "gone.jsonl")


def test_create_job_sends_only_given_parameters(client: OpenAI, fake_api: FakeApi) -> None:
    job = fine_tune.create_job(
        client, training_file="file-1", model="gpt-3.5-turbo", suffix="emoji-v1", n_epochs=3
    )
    assert job.id == JOB
    assert fake_api.created == {
        "model": "gpt-3.5-turbo",
        "training_file": "file-1",
        "suffix": "emoji-v1",
        "hyperparameters": {"n_epochs": 3},
    }


def test_follow_yields_every_event_once_and_ends(client: OpenAI) -> None:
    states = follow(client)
    assert [state.message for state in states if state.message] == [
        f"Created fine-tuning job: {JOB}",
        "Step 1/4",
        "Step 2/4",
        "Step 3/4",
        "Step 4/4",
        "The job is over",
    ]
    last = states[-1]
    assert (last.status, last.finished, last.step, last.loss) == ("succeeded", True, 4, 1.0)
    assert not any(state.finished for state in states[:-1])


def test_follow_estimates_the_epoch_and_the_remaining_time(client: OpenAI) -> None:
    steps = {state.step: state for state in follow(client)}
    assert [steps[n].epoch for n in (1, 2, 3, 4)] == [1, 1, 2, 2]
    assert steps[1].seconds_left is None
    assert steps[2].seconds_left == 20  # ten seconds a step, two to go
    assert steps[4].seconds_left == 0


def test_follow_uses_the_estimate_of_the_job_if_there_is_one(
    client: OpenAI, fake_api: FakeApi
) -> None:
    fake_api.estimated_finish = 1050  # the event of the second step is at 1020
    steps = {state.step: state for state in follow(client)}
    assert [steps[n].seconds_left for n in (1, 2)] == [40, 30]


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_follow_ends_on_every_terminal_state(
    client: OpenAI, fake_api: FakeApi, status: str
) -> None:
    fake_api.final_status = status
    assert follow(client)[-1].status == status


def test_follow_survives_lost_connections(client: OpenAI, fake_api: FakeApi) -> None:
    fake_api.drop = 3
    states = follow(client)
    assert states[0].message == "Connection lost; trying again ..."
    assert states[-1].status == "succeeded"


def test_follow_survives_server_errors(client: OpenAI, fake_api: FakeApi) -> None:
    fake_api.refuse = 500
    states = fine_tune.follow(client, JOB, sleep=no_sleep)
    assert next(states).message == "Connection lost; trying again ..."
    fake_api.refuse = None
    assert list(states)[-1].finished


def test_follow_gives_up_on_a_connection_lost_for_too_long(
    client: OpenAI, fake_api: FakeApi
) -> None:
    fake_api.drop = 1000
    with pytest.raises(ProviderError, match=f"The job {JOB} itself may still be running"):
        follow(client, reconnect_seconds=0)


def test_follow_does_not_retry_permanent_errors(client: OpenAI, fake_api: FakeApi) -> None:
    fake_api.refuse = 401
    with pytest.raises(ProviderError, match="Check the API key"):
        follow(client)


def test_fine_tuned_model_or_the_reason(client: OpenAI, fake_api: FakeApi) -> None:
    fake_api.polls = 9
    job = client.fine_tuning.jobs.retrieve(JOB)
    assert fine_tune.fine_tuned_model(job) == MODEL
    fake_api.final_status = "failed"
    fake_api.error = {"code": "invalid_training_file", "message": "Bad line.", "param": None}
    with pytest.raises(ProviderError, match=r"failed: Bad line\.") as caught:
        fine_tune.fine_tuned_model(client.fine_tuning.jobs.retrieve(JOB))
    assert caught.value.code == "invalid_training_file"
    fake_api.final_status = "cancelled"
    with pytest.raises(InvalidRequestError, match="is cancelled"):
        fine_tune.fine_tuned_model(client.fine_tuning.jobs.retrieve(JOB))


def test_events_in_time_order(client: OpenAI, fake_api: FakeApi) -> None:
    fake_api.polls = 9
    messages = [event.message for event in fine_tune.events(client, JOB, limit=50)]
    assert messages[0] == f"Created fine-tuning job: {JOB}"
    assert messages[-1] == "The job is over"


def test_chat(client: OpenAI, fake_api: FakeApi) -> None:
    assert fine_tune.chat(client, MODEL, "Hello!") == "(party)"
    fine_tune.chat(client, MODEL, "Hello!", system="", decoding="free")
    request, bare = fake_api.chats
    assert [(message["role"], message["content"]) for message in request["messages"]] == [
        ("system", SYSTEM_PROMPT),
        ("user", "Hello!"),
    ]
    assert "decoding" not in request
    assert [message["role"] for message in bare["messages"]] == ["user"]
    assert bare["decoding"] == "free"
