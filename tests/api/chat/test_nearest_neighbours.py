"""A finished job stores the training examples with a model of a closed vocabulary."""

from pathlib import Path

import pytest
from training_jobs import fine_tune, messages, training_server


@pytest.mark.parametrize(
    ("replies", "wanted", "kept"),
    [
        (["(party)", "(ourlogo)"], "true", 10),
        (["(party)", "(ourlogo)"], "false", None),
        ([f"{n} is a number" for n in range(10)], "true", None),
    ],
)
def test_the_last_adapter_has_the_training_examples(
    tmp_path: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    replies: list[str],
    wanted: str,
    kept: int | None,
) -> None:
    monkeypatch.setenv("EMOJITUNE_NEIGHBOURS", wanted)
    with training_server(tmp_path, tiny_base) as client:
        job = fine_tune(client, tmp_path / "train.jsonl", (replies * 10)[:10])
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
