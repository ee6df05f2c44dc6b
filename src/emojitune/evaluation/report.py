"""Evaluations as values to show: table rows, their JSON shape, the picture of a training curve.

Prints nothing.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from emojitune.control_chars import escape_control
from emojitune.disk import open_private
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.calibration import Bin
from emojitune.evaluation.evaluate import Evaluation, Scored
from emojitune.evaluation.intervals import Figure
from emojitune.evaluation.summary import SHARES, TITLES, Difference, compare, figures, reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_SHORT = ("in_style", "in_vocabulary", "top_1", "top_5", "rouge_l")
MOST_DRAWN = 40  # bars of a picture that can still be read


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One model, decoded in one way: its figures by name, and all that they come from."""

    model: str
    decoding: str
    evaluation: Evaluation
    figures: dict[str, Figure]
    reliability: list[Bin]

    @property
    def short(self) -> dict[str, str]:
        """What a short table shows: figures by their titles, shares in per cent."""
        return {
            TITLES[name]: f"{self.figures[name].value:{'.1%' if name in SHARES else '.3f'}}"
            for name in _SHORT
            if name in self.figures
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "decoding": self.decoding,
            "examples": len(self.evaluation.scored),
            **{name: figure.value for name, figure in self.figures.items()},
            "intervals": _intervals(self.figures),
            "reliability_curve": [asdict(one) for one in self.reliability],
            "replies": [_reply(one) for one in self.evaluation.scored],
        }


def report_row(model: str, decoding: str, evaluation: Evaluation) -> ReportRow:
    """`evaluation` as a row of the report."""
    return ReportRow(model, decoding, evaluation, figures(evaluation), reliability(evaluation))


def _reply(one: Scored) -> dict[str, Any]:
    return {
        "message": one.example.question,
        "expected": one.example.reply,
        "reply": one.reply.text,
        "alternatives": list(one.reply.alternatives),
        "confidence": one.reply.confidence,
        "seconds": one.reply.seconds,
    }


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a row has more than another of the same examples, metric by metric."""

    row: ReportRow
    against: ReportRow
    differences: dict[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        sure = {name: difference.figure for name, difference in self.differences.items()}
        return {
            "model": self.row.model,
            "against": self.against.model,
            "decoding": self.row.decoding,
            "against_decoding": self.against.decoding,
            "differences": {name: figure.value for name, figure in sure.items()},
            "intervals": _intervals(sure),
            "p_values": {name: one.p_value for name, one in self.differences.items()},
        }


def comparison(row: ReportRow, against: ReportRow) -> Comparison:
    """Both on the same examples, compared pair by pair."""
    return Comparison(row, against, compare(row.evaluation, against.evaluation))


def comparisons(rows: Iterable[ReportRow], against: Iterable[ReportRow]) -> list[Comparison]:
    """Each row with the one that is decoded alike, where there is one."""
    others = {row.decoding: row for row in against}
    return [comparison(row, others[row.decoding]) for row in rows if row.decoding in others]


def shown(name: str, figure: Figure) -> str:
    """A figure with its interval, as people read it: what is a share of replies in per cent."""
    numbers = (figure.value, figure.low, figure.high)
    if name in SHARES:
        return "{:.1f}% ({:.1f} to {:.1f})".format(*(100 * number for number in numbers))
    return "{:.3f} ({:.3f} to {:.3f})".format(*numbers)


def _intervals(of: dict[str, Figure]) -> dict[str, list[float]]:
    return {name: [figure.low, figure.high] for name, figure in of.items()}


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
    names = [_plain(shorten(reply, 40)) for reply, _ in drawn]
    axes.barh(range(len(drawn)), [count for _, count in drawn], tick_label=names)
    axes.invert_yaxis()
    total = sum(count for _, count in frequencies)
    title = f"{len(drawn)} of {len(frequencies)} different replies, {total} examples"
    axes.set(xlabel="examples", title=title)
    _write(figure, path)


def draw_training_curve(points: Sequence[CurvePoint], path: Path, *, title: str = "") -> None:
    """Write the picture of a training run to `path`; the ending (.png, .svg) is its format."""
    from matplotlib.figure import Figure  # slow to import, and only pictures need it

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([p.step for p in points], [p.train_loss for p in points], label="training loss")
    checked = [(p.step, p.valid_loss) for p in points if p.valid_loss is not None]
    if checked:
        axes.plot(*zip(*checked, strict=True), marker="o", label="validation loss")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=_plain(title))
    axes.set_ylim(bottom=0)
    axes.legend()
    _write(figure, path)


def _plain(text: str) -> str:
    """A text that is never mathematics, which is what matplotlib makes of two dollar signs."""
    return escape_control(text).replace("$", r"\$")


def _write(figure: "Picture", path: Path) -> None:
    picture = io.BytesIO()
    try:
        figure.savefig(picture, dpi=150, format=path.suffix[1:] or None)
        with open_private(path, "wb") as file:
            file.write(picture.getvalue())
    except (OSError, ValueError) as error:  # no such folder, or an ending that is no format
        message = f"The picture {path} cannot be written: {error}. Name a .png or .svg file."
        raise InvalidRequestError(message) from error
