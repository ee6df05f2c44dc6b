"""Label meanings are added as training examples when all labels of a file are known."""

from pathlib import Path

import pytest
from training_jobs import fine_tune, messages, training_server


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
    with training_server(tmp_path, tiny_base) as client:
        job = fine_tune(client, tmp_path / "train.jsonl", ["(party)"] * 9 + [last])
        texts = messages(client, job.id)
    assert any(message.startswith(f"Step {steps}/{steps}") for message in texts)
    meanings = [message for message in texts if message.startswith("Plan: meanings")]
    reason = "two additional examples per label, since the emoji vocabulary has all of them"
    assert meanings == ([f"Plan: meanings 4: {reason}"] if steps == 6 else [])
