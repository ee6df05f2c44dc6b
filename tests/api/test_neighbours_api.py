"""A job that ends leaves the training examples beside its model, where replies are a closed set."""

import json
from pathlib import Path

import pytest
from test_training_api import messages, training_server, wait


@pytest.mark.parametrize(
    ("replies", "wanted", "kept"),
    [
        (["(party)", "(ourlogo)"], "true", 10),
        (["(party)", "(ourlogo)"], "false", None),
        ([f"{n} is a number" for n in range(10)], "true", None),
    ],
)
def test_examples_stay_beside_the_last_adapter(
    tmp_path: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    replies: list[str],
    wanted: str,
    kept: int | None,
) -> None:
    monkeypatch.setenv("EMOJITUNE_NEIGHBOURS", wanted)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"number {n}"},
                {"role": "assistant", "content": replies[n % len(replies)]},
            ]
        }
        for n in range(10)
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
        ended = wait(client, job.id)
        assert ended.status == "succeeded"
        told = [message for message in messages(client, job.id) if "stay with the model" in message]
        checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
        for name in [one.fine_tuned_model_checkpoint for one in checkpoints]:
            reply = client.chat.completions.create(
                model=name,
                messages=[{"role": "user", "content": "number 3"}],
                temperature=0,
                max_tokens=4,
            )
            assert reply.choices[0].message.content is not None
    files = list((tmp_path / "adapters").rglob("neighbours.safetensors"))
    assert [file.parent.name for file in files] == ([f"{job.id}-step-4"] if kept else [])
    assert [message.split()[0] for message in told] == ([str(kept)] if kept else [])
