"""The same pipeline on other data: customers' messages to one of twelve intents, no parentheses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TRAIN, HELD_OUT = (HERE / "data" / "intents" / name for name in ("train.jsonl", "held_out.jsonl"))


@pytest.mark.slow
def test_customers_messages_are_routed_as_well_as_emoji_are_chosen() -> None:
    command = [sys.executable, "-m", "emojitune.cli.main", "run", "--json", "--seed", "1"]
    finished = subprocess.run(
        [*command, "--train", str(TRAIN), "--valid", str(HELD_OUT)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert finished.returncode == 0, finished.stderr[-2000:]
    rows = json.loads(finished.stdout)["scores"]
    scores = {(row["model"][:3], row["decoding"]): row for row in rows}
    tuned = scores["ft:", "constrained"]
    assert tuned["examples"] == 60
    assert tuned["top_1"] >= 0.9
    assert tuned["expected_calibration_error"] <= 0.1
    assert tuned["top_1"] > scores["gpt", "constrained"]["top_1"] + 0.3
