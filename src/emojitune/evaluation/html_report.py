"""A self-contained HTML report: one file without scripts, fonts or pictures from elsewhere.

All text of files and models is escaped.
"""

from collections.abc import Iterable, Sequence
from html import escape

from emojitune.evaluation.evaluate import ScoredExample
from emojitune.evaluation.intervals import Estimate
from emojitune.evaluation.mistakes import confusions, wrong_replies
from emojitune.evaluation.report import Comparison, ReportRow, format_estimate
from emojitune.evaluation.summary import TITLES
from emojitune.evaluation.svg_plots import interval_plot, reliability_plot
from emojitune.labels import to_emoji

MAX_CONFUSIONS = 20
_PLOTTED = ("in_vocabulary", "top_1", "top_3", "top_5", "same_emoji_top_1", "rouge_l")
_STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --page: #ffffff; --faint: #d9dce1;
  --mark: #2a62c9; --band: #f3f5f8; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --page: #16181b; --faint: #3a3f46;
  --mark: #7fb0ff; --band: #1f2328; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid var(--faint); }
tbody tr:nth-child(even) { background: var(--band); }
.wide { overflow-x: auto; } .plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--text); font-size: 12px; }
.faint { stroke: var(--faint); } .dashed { stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--mark); } .mark { fill: var(--mark); fill-opacity: .75; }
.whisker { stroke: var(--mark); stroke-width: 2; }
"""


def html_report(title: str, rows: Sequence[ReportRow], compared: Sequence[Comparison]) -> str:
    """Build the page."""
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p>In brackets and as lines: 95% bootstrap intervals over the examples.</p>",
        _metrics_table(rows),
        interval_plot(list(_intervals(rows))),
        *(_comparison(one) for one in compared),
        _calibration(rows),
        *(_mistakes(row) for row in rows),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _title(row: ReportRow) -> str:
    return f"{row.model}, {row.decoding}"


def _metrics_table(rows: Sequence[ReportRow]) -> str:
    names = [name for name in TITLES if any(name in row.estimates for row in rows)]
    lines = [[TITLES[name], *(_cell(row.estimates, name) for row in rows)] for name in names]
    examples = ["examples", *(str(len(row.evaluation.scored)) for row in rows)]
    return _table(["", *map(_title, rows)], [examples, *lines])


def _cell(estimates: dict[str, Estimate], name: str) -> str:
    return format_estimate(name, estimates[name]) if name in estimates else "not known"


def _intervals(rows: Sequence[ReportRow]) -> Iterable[tuple[str, Estimate]]:
    def short(model: str) -> str:
        # Names differ at their end.
        return model if len(model) < 20 else f"…{model[-18:]}"

    for name in _PLOTTED:
        for row in rows:
            if name in row.estimates:
                yield f"{TITLES[name]}: {short(row.model)}, {row.decoding}", row.estimates[name]


def _comparison(one: Comparison) -> str:
    lines = [
        [TITLES[name], format_estimate(name, difference.estimate), f"{difference.p_value:.4f}"]
        for name, difference in one.differences.items()
    ]
    heading = f"{_title(one.row)} less {_title(one.against)}"
    return f"<h2>{escape(heading)}</h2>" + _table(["", "difference", "p (paired)"], lines)


def _calibration(rows: Sequence[ReportRow]) -> str:
    plots = [
        f"<figure><figcaption>{escape(_title(row))}</figcaption>"
        f"{reliability_plot(row.reliability)}</figure>"
        for row in rows
        if row.reliability
    ]
    if not plots:
        return ""
    return (
        "<h2>Calibration</h2><p>Of replies with a confidence of 0.8, 80% should be right: that is "
        "the dashed line. Below it a model is overconfident. The larger a mark, the more replies."
        f'</p><div class="plots">{"".join(plots)}</div>'
    )


def _mistakes(row: ReportRow) -> str:
    wrong = wrong_replies(row.evaluation)
    return (
        (_confusions(row) if row.evaluation.of_labels else "")
        + f"<h2>{escape(_title(row))}: {len(wrong)} wrong replies</h2>"
        + _table(
            ["message", "expected", "reply", "confidence", "next best"], map(_mistake_cells, wrong)
        )
    )


def _confusions(row: ReportRow) -> str:
    pairs = [
        [_with_emoji(one.expected), _with_emoji(one.reply), str(one.count)]
        for one in confusions(row.evaluation)[:MAX_CONFUSIONS]
    ]
    heading = f"<h2>{escape(_title(row))}: worst confusions</h2>"
    return heading + _table(["expected", "reply", "times"], pairs)


def _mistake_cells(one: ScoredExample) -> list[str]:
    confidence = one.reply.confidence
    return [
        one.example.question,
        _with_emoji(one.example.reply),
        _with_emoji(one.reply.text),
        "" if confidence is None else f"{confidence:.2f}",
        ", ".join(one.reply.alternatives[1:]),
    ]


def _with_emoji(text: str) -> str:
    emoji = to_emoji(text)
    return text if emoji == text else f"{text} {emoji}"


def _table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in headers)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'
