"""The benchmarks' pictures, from their JSON files: `python -m benchmarks.pictures`.

Writes docs/training.svg and docs/replying.svg, each if its file exists. Text and lines have a grey
that can be read on white and on black, on a transparent background.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.report import RESULTS

DOCS = Path("docs")
GREY, ACCENT = "#808080", "#e8710a"
OTHERS = ("#3b8fd6", "#2fa084", "#a371d8", "#c2568f", "#7a8b2e")
STYLE = {
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "font.size": 9,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "emojitune",  # the same numbers make the same file
}


def training(axes: Axes, rows: dict[str, Any]) -> None:
    """A bar for each contender: examples/s."""
    speeds = {name: row["examples_per_second"] for name, row in rows.items()}
    colours = [ACCENT if name == "emojitune" else GREY for name in speeds]
    bars = axes.barh(list(speeds), list(speeds.values()), color=colours, height=0.6)
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("training examples/s")


def replying(axes: Axes, rows: dict[str, Any]) -> None:
    """A line for each engine: replies/s by concurrency."""
    others = iter(OTHERS)
    for name, row in rows.items():
        speeds = row["replies_per_second"]
        ours = name.startswith("emojitune")
        colour, width = (ACCENT, 2.5) if ours else (next(others), 1.5)
        line = "o--" if ours and name.endswith("free") else "o-"
        axes.plot(
            list(speeds), list(speeds.values()), line, color=colour, linewidth=width, label=name
        )
    axes.set_xlabel("concurrent requests")
    axes.set_ylabel("replies/s")
    axes.set_ylim(bottom=0)
    axes.legend()


DRAWN: dict[str, Callable[[Axes, dict[str, Any]], None]] = {
    "training": training,
    "replying": replying,
}


def main() -> None:
    for name, draw in DRAWN.items():
        result = RESULTS / f"{name}.json"
        if not result.is_file():
            continue
        rows = json.loads(result.read_text(encoding="utf-8"))["rows"]
        with rc_context(STYLE):
            figure = Figure(figsize=(7, 3), layout="constrained")
            draw(figure.add_subplot(), rows)
            figure.savefig(
                DOCS / f"{name}.svg", transparent=True, metadata={"Date": None, "Creator": None}
            )


if __name__ == "__main__":
    main()
