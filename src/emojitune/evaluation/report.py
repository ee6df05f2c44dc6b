"""Evaluations as values to show: table rows, comparisons and their JSON shape.

Prints nothing.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from emojitune.evaluation.calibration import Bin
from emojitune.evaluation.evaluate import Evaluation, ScoredExample
from emojitune.evaluation.intervals import Estimate
from emojitune.evaluation.summary import SHARES, TITLES, Difference, compare, estimates, reliability

_SHORT = ("in_style", "in_vocabulary", "top_1", "top_5", "rouge_l")


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One model, decoded in one way: its figures by name, and all that they come from."""

    model: str
    decoding: str
    evaluation: Evaluation
    estimates: dict[str, Estimate]
    reliability: list[Bin]

    @property
    def short(self) -> dict[str, str]:
        """What a short table shows: figures by their titles, shares in per cent."""
        return {
            TITLES[name]: f"{self.estimates[name].value:{'.1%' if name in SHARES else '.3f'}}"
            for name in _SHORT
            if name in self.estimates
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "decoding": self.decoding,
            "examples": len(self.evaluation.scored),
            **{name: estimate.value for name, estimate in self.estimates.items()},
            "intervals": _intervals(self.estimates),
            "reliability_curve": [asdict(one) for one in self.reliability],
            "replies": [_reply(one) for one in self.evaluation.scored],
        }


def report_row(model: str, decoding: str, evaluation: Evaluation) -> ReportRow:
    """`evaluation` as a row of the report."""
    return ReportRow(model, decoding, evaluation, estimates(evaluation), reliability(evaluation))


def _reply(one: ScoredExample) -> dict[str, Any]:
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
        sure = {name: difference.estimate for name, difference in self.differences.items()}
        return {
            "model": self.row.model,
            "against": self.against.model,
            "decoding": self.row.decoding,
            "against_decoding": self.against.decoding,
            "differences": {name: estimate.value for name, estimate in sure.items()},
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


def format_estimate(name: str, estimate: Estimate) -> str:
    """A figure with its interval, as people read it: what is a share of replies in per cent."""
    numbers = (estimate.value, estimate.low, estimate.high)
    if name in SHARES:
        return "{:.1f}% ({:.1f} to {:.1f})".format(*(100 * number for number in numbers))
    return "{:.3f} ({:.3f} to {:.3f})".format(*numbers)


def _intervals(of: dict[str, Estimate]) -> dict[str, list[float]]:
    return {name: [estimate.low, estimate.high] for name, estimate in of.items()}
