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
    """The losses at one step."""

    step: int
    train_loss: float
    valid_loss: float | None = None


def draw_frequencies(frequencies: Sequence[tuple[str, int]], path: Path) -> None:
    """Draw the frequencies of the most frequent replies to the picture `path`."""
    shown = frequencies[:MAX_BARS]
    figure = Figure(figsize=(7, 1 + 0.2 * len(shown)), layout="constrained")
    axes = figure.subplots()
    names = [_escape(shorten(reply, 40)) for reply, _ in shown]
    axes.barh(range(len(shown)), [count for _, count in shown], tick_label=names)
    axes.invert_yaxis()
    total = sum(count for _, count in frequencies)
    title = f"{len(shown)} of {len(frequencies)} different replies, {total} examples"
    axes.set(xlabel="examples", title=title)
    _write(figure, path)


def draw_training_curve(points: Sequence[CurvePoint], path: Path, *, title: str = "") -> None:
    """Draw the losses of a training run to the picture `path`; its suffix is the format."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([p.step for p in points], [p.train_loss for p in points], label="training loss")
    checked = [(p.step, p.valid_loss) for p in points if p.valid_loss is not None]
    if checked:
        axes.plot(*zip(*checked, strict=True), marker="o", label="validation loss")
    axes.set(xlabel="step", ylabel="loss (nats per token)", title=_escape(title))
    axes.set_ylim(bottom=0)
    axes.legend()
    _write(figure, path)


def _escape(text: str) -> str:
    """Escape control characters, and dollar signs, which begin mathematics for matplotlib."""
    return escape_control(text).replace("$", r"\$")


def _write(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    try:
        figure.savefig(picture, dpi=150, format=path.suffix[1:] or None)
        with open_private(path, "wb") as file:
            file.write(picture.getvalue())
    except (OSError, ValueError) as error:  # no such folder, or the suffix is not a format
        message = f"The picture {path} cannot be written: {error}. Name a .png or .svg file."
        raise InvalidRequestError(message) from error
