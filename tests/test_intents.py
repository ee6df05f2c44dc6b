"""The pipeline on other data: customers' messages and their intents, without parentheses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from some_examples import write_some

HERE = Path(__file__).parent
TRAIN, HELD_OUT = (HERE / "data" / "intents" / name for name in ("train.jsonl", "held_out.jsonl"))
# Every second intent.
INTENTS = ("refund", "track_order", "damaged_item", "reset_password", "invoice", "opening_hours")


def emojitune(home: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "emojitune.cli.main", *arguments, "--home", str(home)]
    finished = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout)


@pytest.mark.slow
def test_customers_messages_are_routed_to_their_intents(tmp_path: Path) -> None:
    train = write_some(TRAIN, tmp_path / "train.jsonl", INTENTS)
    held_out = write_some(HELD_OUT, tmp_path / "held_out.jsonl", INTENTS)
    # A few messages suffice to show that the untuned model knows little.
    few = write_some(HELD_OUT, tmp_path / "few.jsonl", INTENTS, step=3)
    files = ("--train", str(train), "--valid", str(few))
    run = emojitune(tmp_path, "run", *files, "--epochs", "2", "--seed", "1")
    [untuned] = [
        row
        for row in run["scores"]
        if row["decoding"] == "constrained" and not row["model"].startswith("ft:")
    ]
    assert untuned["examples"] == 10
    scored = emojitune(tmp_path, "evaluate", run["fine_tuned_model"], "--data", str(held_out))
    [tuned] = [row for row in scored["scores"] if row["decoding"] == "constrained"]
    assert tuned["examples"] == len(tuned["replies"]) == 30
    assert tuned["top_1"] >= 0.9
    assert tuned["expected_calibration_error"] <= 0.1
    assert untuned["top_1"] < tuned["top_1"] / 2, "it is learned in training"
