"""Pictures that are really written."""

import subprocess
import sys
from pathlib import Path

import pytest

from emojitune.evaluation import plots
from emojitune.evaluation.plots import CurvePoint, draw_frequencies, draw_training_curve


def test_a_training_curve_is_a_picture(tmp_path: Path) -> None:
    points = [CurvePoint(1, 3.0), CurvePoint(2, 2.0, 2.5), CurvePoint(3, 1.0, 2.0)]
    draw_training_curve(points, tmp_path / "curve.png", title="a run")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [r"$\nonsense$", "a\x1b[31m\x9b", "caf\udce9"])
def test_a_name_in_a_picture_is_plain_text(tmp_path: Path, name: str) -> None:
    draw_training_curve([CurvePoint(1, 3.0)], tmp_path / "curve.svg", title=name)
    draw_frequencies([(name, 2)], tmp_path / "bars.svg")
    for picture in ("curve.svg", "bars.svg"):
        assert (tmp_path / picture).read_text().endswith("</svg>\n")


def test_dollar_signs_and_control_characters_are_escaped_in_a_picture() -> None:
    assert plots._escape("$x$ and \x1b") == r"\$x\$ and \x1b"


def test_matplotlib_waits_until_a_plot_is_drawn() -> None:
    modules = "emojitune.evaluation.report, emojitune.cli.data.files, emojitune.cli.jobs"
    code = f"import sys, {modules}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
