"""Plots of a report as SVG text: no library, colours from the page that they stand in.

Knows numbers and names to draw. Classes (`axis`, `mark`, `faint`) are styled by the page.
"""

from collections.abc import Sequence
from html import escape

from emojitune.evaluation.calibration import Bin
from emojitune.evaluation.intervals import Estimate

_SIDE = 260  # pixels of a square plot, within its margins
_MARGIN = 44
_LINE = 24  # pixels from one interval to the next
_NAMES = 380  # pixels left of the intervals


def reliability_plot(bins: Sequence[Bin]) -> str:
    """Accuracy over confidence; the area of a mark is the number of its replies."""
    total = sum(one.count for one in bins)
    points = [(_across(one.confidence), _up(one.accuracy)) for one in bins]
    marks = [
        _circle(x, y, 3 + 14 * (one.count / total) ** 0.5)
        for one, (x, y) in zip(bins, points, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return _svg(
        _SIDE + 2 * _MARGIN,
        _SIDE + 2 * _MARGIN,
        "Reliability curve",
        [
            *_grid(),
            _segment("faint dashed", _across(0), _up(0), _across(1), _up(1)),
            f'<polyline class="curve" points="{path}"/>',
            *marks,
            _text(_across(0.5), _up(0) + 36, "confidence", "middle"),
            _text(_across(0), _up(1) - 10, "accuracy", "middle"),
        ],
    )


def interval_plot(named: Sequence[tuple[str, Estimate]]) -> str:
    """Shares with their intervals, a line each, from 0 to 100 %."""
    bottom = _LINE * len(named) + 8

    def at(share: float) -> float:
        return _NAMES + 1.5 * _SIDE * share

    drawn = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        drawn.append(_segment("faint", at(tick), 0, at(tick), bottom))
        drawn.append(_text(at(tick), bottom + 16, f"{tick:.0%}", "middle"))
    for place, (name, estimate) in enumerate(named):
        y = _LINE * (place + 0.6)
        drawn.append(_text(_NAMES - 10, y + 4, name, "end"))
        drawn.append(_segment("whisker", at(estimate.low), y, at(estimate.high), y))
        drawn.append(_circle(at(estimate.value), y, 5))
    return _svg(int(at(1)) + 24, bottom + 24, "Figures with 95% intervals", drawn)


def _grid() -> list[str]:
    drawn = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        drawn.append(_segment("faint", _across(tick), _up(0), _across(tick), _up(1)))
        drawn.append(_segment("faint", _across(0), _up(tick), _across(1), _up(tick)))
        drawn.append(_text(_across(tick), _up(0) + 18, f"{tick:g}", "middle"))
        drawn.append(_text(_across(0) - 8, _up(tick) + 4, f"{tick:g}", "end"))
    return drawn


def _across(share: float) -> float:
    return _MARGIN + _SIDE * share


def _up(share: float) -> float:
    return _MARGIN + _SIDE * (1 - share)


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, said: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(said)}</text>'


def _svg(width: int, height: int, title: str, drawn: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(title)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(drawn)}</svg>'
    )
