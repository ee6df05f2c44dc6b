"""The same pipeline on other data: customers' messages to one of twelve intents, no parentheses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TRAIN, HELD_OUT = (HERE / "data" / "intents" / name for name in ("train.jsonl", "held_out.jsonl"))


def emojitune(home: Path, *arguments: str) -> Any:
    command = [sys.executable, "-m", "emojitune.cli.main", *arguments, "--home", str(home)]
    finished = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout)


@pytest.mark.slow
def test_customers_messages_are_routed_to_their_intents(tmp_path: Path) -> None:
    # The untuned model on one message of each intent: that it knows little shows on few.
    lines = HELD_OUT.read_text(encoding="utf-8").splitlines(keepends=True)
    by_intent = {json.loads(line)["messages"][-1]["content"]: line for line in lines}
    few = tmp_path / "few.jsonl"
    few.write_text("".join(by_intent.values()), encoding="utf-8")
    files = ("--train", str(TRAIN), "--valid", str(few))
    run = emojitune(tmp_path, "run", *files, "--epochs", "5", "--seed", "1")
    [untuned] = [
        row
        for row in run["scores"]
        if row["decoding"] == "constrained" and not row["model"].startswith("ft:")
    ]
    assert untuned["examples"] == 12
    scored = emojitune(tmp_path, "evaluate", run["fine_tuned_model"], "--data", str(HELD_OUT))
    [tuned] = [row for row in scored["scores"] if row["decoding"] == "constrained"]
    assert tuned["examples"] == len(tuned["replies"]) == 60
    assert tuned["top_1"] >= 0.9
    assert tuned["expected_calibration_error"] <= 0.1
    assert untuned["top_1"] < tuned["top_1"] / 2, "it is the training that does it"
