"""The promises of `make run`, with the real base model and the shipped data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from some_examples import write_some

from emojitune.labels import label_meanings

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
SIXTH = frozenset(sorted(label_meanings())[::6])

pytestmark = pytest.mark.slow


def emojitune(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emojitune.cli.main", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def test_the_main_job_makes_a_chatbot_with_style_and_many_hits(tmp_path: Path) -> None:
    # A sixth of the labels, one epoch of three and some of the messages: the bounds for the full
    # job hold already.
    train = write_some(DATA / "emoji_ft_train.jsonl", tmp_path / "train.jsonl", SIXTH)
    valid = write_some(DATA / "emoji_ft_valid.jsonl", tmp_path / "valid.jsonl", SIXTH, step=2)
    files = ("--train", str(train), "--valid", str(valid))
    finished = emojitune("run", "--json", "--seed", "7", "--epochs", "1", *files)
    assert finished.returncode == 0, finished.stderr[-2000:]
    result = json.loads(finished.stdout)
    assert result["job"]["status"] == "succeeded"
    assert result["job"]["model"] == "gpt-3.5-turbo-0125"
    assert result["smoke_test"]["reply"] in label_meanings()

    scores = {(row["model"][:3], row["decoding"]): row for row in result["scores"]}
    assert len(scores) == 4
    constrained, free = scores["ft:", "constrained"], scores["ft:", "free"]
    assert constrained["in_vocabulary"] == 1.0
    assert constrained["top_1"] >= 0.35
    assert free["in_style"] >= 0.95
    untuned = scores["gpt", "constrained"]
    assert untuned["top_1"] < constrained["top_1"] / 4, "it is learned in training"

    # The fine-tuned model persists: another server on the same home folder serves it.
    chat = emojitune("chat", result["fine_tuned_model"], "Happy birthday to you!")
    assert chat.returncode == 0, chat.stderr[-2000:]
    assert any(label in chat.stdout for label in label_meanings())
