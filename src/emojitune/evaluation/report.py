"""Evaluations as values to show: table rows, their JSON shape, the picture of a training curve.

Prints nothing.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from emojitune.evaluation.evaluate import Evaluation

COLUMNS = ("in style", "in vocabulary", "top-1", "top-5")
MOST_DRAWN = 40  # bars of a picture that can still be read


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One line of the comparison table; shares lie between 0 and 1."""

    model: str
    decoding: str
    examples: int
    in_style: float
    in_vocabulary: float
    top_1: float
    top_5: float

    @property
    def cells(self) -> tuple[str, ...]:
        """The shares as percentages, in the order of `COLUMNS`."""
        shares = (self.in_style, self.in_vocabulary, self.top_1, self.top_5)
        return tuple(f"{share:.1%}" for share in shares)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def report_row(model: str, decoding: str, evaluation: Evaluation) -> ReportRow:
    """`evaluation` as a line of the table."""
    return ReportRow(
        model=model,
        decoding=decoding,
        examples=len(evaluation.scored),
        in_style=evaluation.in_style,
        in_vocabulary=evaluation.in_vocabulary,
        top_1=evaluation.top_1,
        top_5=evaluation.top_5,
    )


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The losses known at one step."""

    step: int
    train_loss: float
    valid_loss: float | None = None


def draw_frequencies(frequencies: Sequence[tuple[str, int]], path: Path) -> None:
    """Write the picture of how often each reply is there, the most frequent ones, to `path`."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    drawn = frequencies[:MOST_DRAWN]
    figure = Figure(figsize=(7, 1 + 0.2 * len(drawn)), layout="constrained")
    axes = figure.subplots()
    # A name is text and never mathematics, which is what matplotlib makes of two dollar signs.
    names = [shorten(reply, 40).replace("$", r"\$") for reply, _ in drawn]
    axes.barh(range(len(drawn)), [count for _, count in drawn], tick_label=names)
    axes.invert_yaxis()
    total = sum(count for _, count in frequencies)
    title = f"{len(drawn)} of {len(frequencies)} different replies, {total} examples"
    axes.set(xlabel="examples", title=title)
    figure.savefig(path, dpi=150)


def draw_training_curve(points: Sequence[CurvePoint], path: Path, *, title: str = "") -> None:
    """Write the picture of a training run to `path`; the ending (.png, .svg) is its format."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([p.step for p in points], [p.train_loss for p in points], label="training loss")
    checked = [(p.step, p.valid_loss) for p in points if p.valid_loss is not None]
    if checked:
        axes.plot(*zip(*checked, strict=True), marker="o", label="validation loss")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=title)
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=150)
