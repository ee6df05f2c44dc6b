"""What labels mean is trained beside the examples of a file whose labels are all known."""

import json
from pathlib import Path

import pytest
from test_training_api import messages, training_server, wait


@pytest.mark.parametrize(
    ("last", "wanted", "steps"),
    [("(yawn)", "true", 6), ("(yawn)", "false", 4), ("(ourlogo)", "true", 4)],
)
def test_known_labels_are_trained_with_their_meanings(
    tmp_path: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    last: str,
    wanted: str,
    steps: int,
) -> None:
    monkeypatch.setenv("EMOJITUNE_LABEL_MEANINGS", wanted)
    replies = ["(party)"] * 9 + [last]
    rows = [
        {"messages": [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": reply}]}
        for n, reply in enumerate(replies)
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with training_server(tmp_path, tiny_base) as client:
        file = client.files.create(file=path, purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="gpt-3.5-turbo",
            training_file=file.id,
            hyperparameters={"n_epochs": 2, "batch_size": 5},
        )
        assert wait(client, job.id).status == "succeeded"
        told = messages(client, job.id)
    assert any(message.startswith(f"Step {steps}/{steps}") for message in told)
    meanings = [message for message in told if message.startswith("Plan: meanings")]
    assert meanings == (
        ["Plan: meanings 4: more examples, two a label, since the emoji vocabulary knows them all"]
        if steps == 6
        else []
    )
