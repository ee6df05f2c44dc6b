"""End to end with the official client on a real port: upload, job, events, chat.

The model is tiny and random; the server, its store and the worker process are real.
"""

import base64
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI
from servers import KEY
from training_jobs import (
    LABELS,
    SYSTEM,
    create,
    messages,
    training_file,
    training_server,
    wait,
    wait_for_workers,
)


def as_other_programs_would_write_it(path: Path) -> Path:
    """A copy of the examples with a byte order mark, CRLF line endings, blank lines and nulls."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["messages"] = [{"name": None, "tool_calls": None, **one} for one in row["messages"]]
    lines = [json.dumps({**row, "parallel_tool_calls": None, "id": None}) for row in rows]
    path.write_bytes("\r\n".join(["\ufeff" + lines[0], "", *lines[1:], "", ""]).encode())
    return path


def test_a_file_becomes_a_chat_model(tmp_path: Path, tiny_base: Path) -> None:
    with training_server(tmp_path / "home", tiny_base) as client:
        file = as_other_programs_would_write_it(training_file(tmp_path))
        job = create(client, file, hyperparameters={"n_epochs": 3, "batch_size": 4})
        assert job.status == "validating_files"
        job = wait(client, job.id)
        assert job.status == "succeeded", job.error
        assert job.model == "gpt-3.5-turbo-0125"
        assert job.hyperparameters.n_epochs == 3
        assert job.trained_tokens
        assert job.finished_at

        model = job.fine_tuned_model
        assert model
        assert model.split(":")[:4] == ["ft", "gpt-3.5-turbo-0125", "local", "emoji-v1"]

        texts = messages(client, job.id)
        assert texts[0] == f"Created fine-tuning job: {job.id}"
        assert texts[2] == "Files validated, moving job to queued state"
        assert any("is served here by" in message for message in texts)
        assert [m.split(":")[0] for m in texts if m.startswith("Step ")] == [
            f"Step {step}/9" for step in range(1, 10)
        ]
        # The last step's checkpoint has the model's name, as at OpenAI.
        snapshots = [m for m in texts if m.startswith("Checkpoint created at step ")]
        assert [m.split(" with ")[0].split()[-1] for m in snapshots] == ["3", "6"]
        assert [m.split(":ckpt-step-")[1] for m in snapshots] == ["3", "6"]
        assert texts[-2:] == [
            f"New fine-tuned model created: {model}",
            "The job has successfully completed",
        ]

        checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
        assert [checkpoint.step_number for checkpoint in checkpoints] == [9, 6, 3]
        assert checkpoints[0].fine_tuned_model_checkpoint == model
        for name in (model, checkpoints[2].fine_tuned_model_checkpoint):
            reply = client.chat.completions.create(
                model=name,
                messages=[SYSTEM, {"role": "user", "content": "What is going on?"}],
                max_tokens=50,
            )
            assert reply.choices[0].message.content in LABELS

        result = client.files.content(job.result_files[0]).read()
        lines = base64.b64decode(result).decode().splitlines()
        assert lines[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
        assert len(lines) == 10

        assert model in {listed.id for listed in client.models.list()}
        client.models.delete(model)
        with pytest.raises(NotFoundError):
            client.models.retrieve(model)


def test_a_fine_tuned_model_can_be_fine_tuned(tmp_path: Path, tiny_base: Path) -> None:
    with training_server(tmp_path / "home", tiny_base) as client:
        path = training_file(tmp_path)
        first = wait(client, create(client, path, hyperparameters={"n_epochs": 1}).id)
        assert first.fine_tuned_model
        second = client.fine_tuning.jobs.create(
            training_file=first.training_file,
            validation_file=first.training_file,
            model=first.fine_tuned_model,
            hyperparameters={"n_epochs": 1},
        )
        second = wait(client, second.id)
        assert second.status == "succeeded", second.error
        texts = messages(client, second.id)
        # Twelve examples in batches of one; validation runs at the end of each epoch.
        last = next(m for m in texts if m.startswith("Step 12/12: "))
        number = r"\d+\.\d\d"
        assert re.fullmatch(
            f"Step 12/12: training loss={number}, validation loss={number}, "
            f"full validation loss={number}",
            last,
        )
        metrics = client.fine_tuning.jobs.checkpoints.list(second.id).data[0].metrics
        assert metrics.valid_loss == metrics.full_valid_loss is not None
        assert metrics.valid_mean_token_accuracy == metrics.full_valid_mean_token_accuracy
        lines = base64.b64decode(client.files.content(second.result_files[0]).read()).decode()
        cells = [line.split(",") for line in lines.splitlines()[1:]]
        assert [row[3:] for row in cells[:-1]] == [["", ""]] * 11
        shown = [str(metrics.valid_loss), str(metrics.valid_mean_token_accuracy)]
        assert cells[-1][3:] == shown
        assert any("validation examples are (nearly) training examples" in m for m in texts)


def test_a_job_continues_after_a_restart(tmp_path: Path, tiny_base: Path) -> None:
    path = training_file(tmp_path)
    with training_server(tmp_path / "home", tiny_base) as client:
        job = create(client, path, hyperparameters={"n_epochs": 25, "batch_size": 1}, seed=1)
        wait(client, job.id, lambda _: bool(client.fine_tuning.jobs.checkpoints.list(job.id).data))
        assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    with training_server(tmp_path / "home", tiny_base) as client:
        again = wait(client, job.id)
        assert again.status == "succeeded", again.error
        steps = [m.split(":")[0] for m in messages(client, job.id) if m.startswith("Step ")]
        assert steps == [f"Step {step}/300" for step in range(1, 301)], "each step is reported once"


def test_a_paused_job_resumes_from_its_last_checkpoint(tmp_path: Path, tiny_base: Path) -> None:
    with (
        training_server(tmp_path / "home", tiny_base) as client,
        # The strict client does not know the status "paused": see trap 3.
        OpenAI(base_url=client.base_url, api_key=KEY, max_retries=0) as loose,
    ):
        job = create(
            client,
            training_file(tmp_path),
            hyperparameters={"n_epochs": 25, "batch_size": 1},
            seed=1,
        )
        wait(client, job.id, lambda _: bool(client.fine_tuning.jobs.checkpoints.list(job.id).data))
        assert loose.fine_tuning.jobs.pause(job.id).status == "paused"
        wait_for_workers(tmp_path / "home")
        count = len(messages(client, job.id))
        time.sleep(1)
        assert len(messages(client, job.id)) == count, "a paused job adds no events"
        rested = loose.fine_tuning.jobs.retrieve(job.id)
        assert (rested.status, rested.fine_tuned_model) == ("paused", None)
        assert client.fine_tuning.jobs.resume(job.id).status == "queued"
        done = wait(client, job.id)
        assert done.status == "succeeded", done.error
        told_now = messages(client, job.id)
        steps = [m.split(":")[0] for m in told_now if m.startswith("Step ")]
        assert steps == [f"Step {step}/300" for step in range(1, 301)], "each step is reported once"
        assert told_now.count("Fine-tuning job paused") == 1
        assert told_now.count("Fine-tuning job resumed") == 1


def test_trap_22_only_the_last_three_checkpoints_stay(tmp_path: Path, tiny_base: Path) -> None:
    home = tmp_path / "home"
    with training_server(home, tiny_base) as client:
        job = create(
            client, training_file(tmp_path), hyperparameters={"n_epochs": 5, "batch_size": 4}
        )
        job = wait(client, job.id)
        assert job.status == "succeeded", job.error
        checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
        names = [checkpoint.fine_tuned_model_checkpoint for checkpoint in checkpoints]
        assert [checkpoint.step_number for checkpoint in checkpoints] == [15, 12, 9]
        assert names[0] == job.fine_tuned_model
        assert [name.split(":ckpt-step-")[1] for name in names[1:]] == ["12", "9"]
        assert len({name.split(":")[4] for name in names}) == 3, "each has an id of its own"
        assert len(list((home / "adapters").iterdir())) == 3
        for checkpoint in checkpoints:
            metrics = checkpoint.to_dict()["metrics"]
            assert metrics["step"] == checkpoint.step_number
            assert None not in metrics.values()
            assert client.models.retrieve(checkpoint.fine_tuned_model_checkpoint)
        texts = messages(client, job.id)
        gone = next(m.split("Snapshot ID: ")[1] for m in texts if "at step 3 with" in m)
        with pytest.raises(NotFoundError):
            client.models.retrieve(gone)


def test_a_checkpoint_can_be_fine_tuned(tmp_path: Path, tiny_base: Path) -> None:
    with training_server(tmp_path / "home", tiny_base) as client:
        hyperparameters = {"n_epochs": 2, "batch_size": 4}
        first = create(client, training_file(tmp_path), hyperparameters=hyperparameters)
        wait(client, first.id)
        checkpoint = client.fine_tuning.jobs.checkpoints.list(first.id).data[1]
        name = checkpoint.fine_tuned_model_checkpoint
        assert ":ckpt-step-3" in name
        second = client.fine_tuning.jobs.create(
            training_file=first.training_file, model=name, hyperparameters=hyperparameters
        )
        assert second.model == name
        done = wait(client, second.id)
        assert done.status == "succeeded", done.error
        assert done.fine_tuned_model
        assert done.fine_tuned_model.split(":")[1] == "gpt-3.5-turbo-0125"
        # The base model disappears while a job waits for another one.
        busy = create(
            client, training_file(tmp_path), hyperparameters={"n_epochs": 50, "batch_size": 1}
        )
        wait(client, busy.id, lambda job: job.status == "running")
        late = client.fine_tuning.jobs.create(training_file=first.training_file, model=name)
        client.models.delete(name)
        with pytest.raises(NotFoundError):
            client.fine_tuning.jobs.create(training_file=first.training_file, model=name)
        client.fine_tuning.jobs.cancel(busy.id)
        late = wait(client, late.id)
        assert late.status == "failed"
        assert late.error
        assert (late.error.code, late.error.param) == ("model_not_found", "model")
        assert "was deleted before it was used" in late.error.message
        assert late.finished_at, "unlike a job whose files were refused, it had begun"


def test_a_cancelled_job_stops_and_its_checkpoints_stay_usable(
    tmp_path: Path, tiny_base: Path
) -> None:
    with training_server(tmp_path / "home", tiny_base) as client:
        job = create(
            client, training_file(tmp_path), hyperparameters={"n_epochs": 50, "batch_size": 1}
        )
        wait(client, job.id, lambda _: bool(client.fine_tuning.jobs.checkpoints.list(job.id).data))
        assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
        wait_for_workers(tmp_path / "home")
        texts = messages(client, job.id)
        time.sleep(1)
        assert messages(client, job.id) == texts
        assert texts[-1] != "The job has successfully completed"
        name = client.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
        reply = client.chat.completions.create(
            model=name,
            messages=[SYSTEM, {"role": "user", "content": "What is going on?"}],
            max_tokens=50,
        )
        assert reply.choices[0].message.content in LABELS


def test_a_missing_wandb_package_is_reported(
    tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "wandb.py").write_text("raise ImportError('hidden by a test')")
    paths = [str(hidden), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    with training_server(tmp_path / "home", tiny_base) as client:
        job = create(
            client,
            training_file(tmp_path),
            hyperparameters={"n_epochs": 1},
            integrations=[{"type": "wandb", "wandb": {"project": "emoji"}}],
        )
        job = wait(client, job.id)
        assert job.status == "succeeded", job.error
        events = list(client.fine_tuning.jobs.list_events(job.id, limit=100))
        [warning] = [event for event in events if event.level == "warn"]
        assert "wandb package is not installed" in warning.message


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda lines: lines[:9], "invalid_n_examples", "has 9 example(s)"),
        (lambda lines: [*lines[:3], "{broken", *lines[4:]], "invalid_training_file", "line 4"),
        (
            lambda lines: [line.replace('"assistant"', '"robot"') for line in lines],
            "invalid_training_file",
            "robot",
        ),
        (
            lambda lines: [line.replace("(", "").replace("assistant", "user") for line in lines],
            "invalid_training_file",
            "assistant",
        ),
    ],
)
def test_trap_25_an_invalid_file_fails_the_job_with_the_reason(
    tmp_path: Path,
    tiny_base: Path,
    change: Callable[[list[str]], list[str]],
    code: str,
    words: str,
) -> None:
    path = training_file(tmp_path)
    lines = change(path.read_text(encoding="utf-8").splitlines())
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with training_server(tmp_path / "home", tiny_base) as client:
        job = wait(client, create(client, path).id)
        assert job.status == "failed"
        assert job.error
        assert job.error.code == code
        assert words in job.error.message
        assert job.error.param == "training_file"
        assert job.hyperparameters.n_epochs == "auto"
        assert (job.finished_at, job.trained_tokens, job.fine_tuned_model) == (None, None, None)
