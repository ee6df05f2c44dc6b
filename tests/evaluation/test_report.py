"""Rows of the table, their JSON shape, and a picture that is really written."""

import json
import subprocess
import sys
from pathlib import Path

from emojitune.dataset.example import Message, TrainingExample
from emojitune.evaluation.evaluate import Reply, evaluate
from emojitune.evaluation.report import (
    COLUMNS,
    CurvePoint,
    draw_training_curve,
    report_row,
)


def test_row_cells_and_json() -> None:
    example = TrainingExample((Message("user", "hi"), Message("assistant", "(wave)")))
    result = evaluate(lambda _: Reply("(wave)", ("(wave)",)), [example] * 3, ("(wave)",))
    row = report_row("ft:x", "free", result)
    assert row.cells == ("100.0%",) * len(COLUMNS)
    assert json.loads(json.dumps(row.to_dict())) == {
        "model": "ft:x",
        "decoding": "free",
        "examples": 3,
        "in_style": 1.0,
        "in_vocabulary": 1.0,
        "top_1": 1.0,
        "top_5": 1.0,
    }


def test_training_curve_is_a_picture(tmp_path: Path) -> None:
    points = [CurvePoint(1, 3.0), CurvePoint(2, 2.0, 2.5), CurvePoint(3, 1.0, 2.0)]
    draw_training_curve(points, tmp_path / "curve.png", title="a run")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_matplotlib_waits_until_a_picture_is_drawn() -> None:
    code = "import sys, emojitune.evaluation.report; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
