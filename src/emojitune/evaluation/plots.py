"""Plots as picture files, drawn by matplotlib: label frequencies and the training curve.

Importing matplotlib takes half a second: import this module where a plot is drawn.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

from matplotlib.figure import Figure

from emojitune.control_chars import escape_control
from emojitune.disk import open_private
from emojitune.errors import InvalidRequestError

MAX_BARS = 40  # of a plot that can still be read


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The losses known at one step."""

    step: int
    train_loss: float
    valid_loss: float | None = None


def draw_frequencies(frequencies: Sequence[tuple[str, int]], path: Path) -> None:
    """Write the picture of how often each reply is there, the most frequent ones, to `path`."""
    drawn = frequencies[:MAX_BARS]
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


def _write(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    try:
        figure.savefig(picture, dpi=150, format=path.suffix[1:] or None)
        with open_private(path, "wb") as file:
            file.write(picture.getvalue())
    except (OSError, ValueError) as error:  # no such folder, or an ending that is no format
        message = f"The picture {path} cannot be written: {error}. Name a .png or .svg file."
        raise InvalidRequestError(message) from error
