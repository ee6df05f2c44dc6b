"""Rows of the table, their JSON shape, and a picture that is really written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation import report
from emojitune.evaluation.evaluate import Evaluation, evaluate
from emojitune.evaluation.intervals import Figure
from emojitune.evaluation.metrics import METRICS, Reply
from emojitune.evaluation.report import (
    CurvePoint,
    comparisons,
    draw_frequencies,
    draw_training_curve,
    report_row,
    shown,
)


def scored(reply: Reply) -> Evaluation:
    example = TrainingExample((Message("user", "hi"), Message("assistant", "(wave)")))
    return evaluate(lambda _: reply, [example] * 3, ("(wave)",))


def test_row_cells_and_json() -> None:
    result = scored(Reply("(wave)", ("(wave)",), confidence=0.75))
    row = report_row("ft:x", "free", result)
    assert row.short == dict.fromkeys(("in style", "in vocabulary", "top-1", "top-5"), "100.0%")
    told = json.loads(json.dumps(row.to_dict()))
    assert (told["model"], told["decoding"], told["examples"]) == ("ft:x", "free", 3)
    for metric in METRICS:
        assert told[metric.name] == 1.0
        assert told["intervals"][metric.name] == [1.0, 1.0]
    assert told["expected_calibration_error"] == 0.25
    assert told["reliability_curve"] == [{"count": 3, "confidence": 0.75, "accuracy": 1.0}]
    assert len(told["replies"]) == 3
    assert told["replies"][0] == {
        "message": "hi",
        "expected": "(wave)",
        "reply": "(wave)",
        "alternatives": ["(wave)"],
        "confidence": 0.75,
        "seconds": None,
    }


def test_rows_that_are_decoded_alike_are_compared() -> None:
    one = scored(Reply("(wave)"))
    rows = [report_row("new", "free", one), report_row("new", "constrained", one)]
    [found] = comparisons(rows, [report_row("old", "free", scored(Reply("(x)")))])
    told = json.loads(json.dumps(found.to_dict()))
    assert (told["model"], told["against"], told["decoding"]) == ("new", "old", "free")
    assert told["differences"]["top_1"] == 1
    assert told["intervals"]["top_1"] == [1, 1]
    assert told["p_values"]["in_style"] == 1


def test_figures_as_people_read_them() -> None:
    assert shown("top_1", Figure(0.4733, 0.39, 0.56)) == "47.3% (39.0 to 56.0)"
    assert shown("seconds_per_reply", Figure(1.5, 1, 2)) == "1.500 (1.000 to 2.000)"


def test_training_curve_is_a_picture(tmp_path: Path) -> None:
    points = [CurvePoint(1, 3.0), CurvePoint(2, 2.0, 2.5), CurvePoint(3, 1.0, 2.0)]
    draw_training_curve(points, tmp_path / "curve.png", title="a run")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [r"$\nonsense$", "a\x1b[31m\x9b", "caf\udce9"])
def test_a_name_in_a_picture_is_plain_text(tmp_path: Path, name: str) -> None:
    draw_training_curve([CurvePoint(1, 3.0)], tmp_path / "curve.svg", title=name)
    draw_frequencies([(name, 2)], tmp_path / "bars.svg")
    for drawn in ("curve.svg", "bars.svg"):
        assert (tmp_path / drawn).read_text().endswith("</svg>\n")


def test_dollar_signs_and_control_characters_are_escaped_in_a_picture() -> None:
    assert report._plain("$x$ and \x1b") == r"\$x\$ and \x1b"


def test_matplotlib_waits_until_a_picture_is_drawn() -> None:
    code = "import sys, emojitune.evaluation.report; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
