"""SVG plots for the HTML report: small, and in the colours of the page that contains them.

Knows numbers and names. The page styles the classes `mark`, `curve`, `whisker`, `faint` and
`dashed`, for light and dark.
"""

from collections.abc import Sequence
from html import escape

from emojitune.evaluation.calibration import Bin
from emojitune.evaluation.intervals import Estimate

_PLOT_SIZE = 260  # pixels of the square within the margins
_MARGIN = 44
_ROW_HEIGHT = 24  # pixels
_NAME_WIDTH = 380  # pixels to the left of the intervals


def reliability_plot(bins: Sequence[Bin]) -> str:
    """Plot accuracy over confidence; the area of a mark shows the number of its replies."""
    total = sum(one.count for one in bins)
    points = [(_x(one.confidence), _y(one.accuracy)) for one in bins]
    marks = [
        _circle(x, y, 3 + 14 * (one.count / total) ** 0.5)
        for one, (x, y) in zip(bins, points, strict=True)
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return _svg(
        _PLOT_SIZE + 2 * _MARGIN,
        _PLOT_SIZE + 2 * _MARGIN,
        "Reliability curve",
        [
            *_grid(),
            _segment("faint dashed", _x(0), _y(0), _x(1), _y(1)),
            f'<polyline class="curve" points="{path}"/>',
            *marks,
            _text(_x(0.5), _y(0) + 36, "confidence", "middle"),
            _text(_x(0), _y(1) - 10, "accuracy", "middle"),
        ],
    )


def interval_plot(estimates: Sequence[tuple[str, Estimate]]) -> str:
    """Plot estimates of shares with their intervals, one in each row, from 0 to 100 %."""
    bottom = _ROW_HEIGHT * len(estimates) + 8

    def x_of(share: float) -> float:
        return _NAME_WIDTH + 1.5 * _PLOT_SIZE * share

    elements = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        elements.append(_segment("faint", x_of(tick), 0, x_of(tick), bottom))
        elements.append(_text(x_of(tick), bottom + 16, f"{tick:.0%}", "middle"))
    for row, (name, estimate) in enumerate(estimates):
        y = _ROW_HEIGHT * (row + 0.6)
        elements.append(_text(_NAME_WIDTH - 10, y + 4, name, "end"))
        elements.append(_segment("whisker", x_of(estimate.low), y, x_of(estimate.high), y))
        elements.append(_circle(x_of(estimate.value), y, 5))
    return _svg(int(x_of(1)) + 24, bottom + 24, "Metrics with 95% intervals", elements)


def _grid() -> list[str]:
    elements = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        elements.append(_segment("faint", _x(tick), _y(0), _x(tick), _y(1)))
        elements.append(_segment("faint", _x(0), _y(tick), _x(1), _y(tick)))
        elements.append(_text(_x(tick), _y(0) + 18, f"{tick:g}", "middle"))
        elements.append(_text(_x(0) - 8, _y(tick) + 4, f"{tick:g}", "end"))
    return elements


def _x(share: float) -> float:
    return _MARGIN + _PLOT_SIZE * share


def _y(share: float) -> float:
    return _MARGIN + _PLOT_SIZE * (1 - share)


def _circle(x: float, y: float, radius: float) -> str:
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, elements: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(title)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{"".join(elements)}</svg>'
    )
