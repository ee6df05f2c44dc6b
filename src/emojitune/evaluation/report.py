"""Reports of evaluations as values: rows, comparisons, and their JSON.

Prints nothing.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from emojitune.evaluation.calibration import Bin
from emojitune.evaluation.evaluate import Evaluation, ScoredExample
from emojitune.evaluation.intervals import Estimate
from emojitune.evaluation.summary import (
    SHARES,
    TITLES,
    Difference,
    compare,
    estimate_metrics,
    reliability,
)

_SHORT = ("in_style", "in_vocabulary", "top_1", "top_5", "rouge_l")


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A model with one way of decoding: its estimates by name, and the replies they come from."""

    model: str
    decoding: str
    evaluation: Evaluation
    estimates: dict[str, Estimate]
    reliability: list[Bin]

    @property
    def short(self) -> dict[str, str]:
        """The values of a short table by their titles, shares in per cent."""
        return {
            TITLES[name]: f"{self.estimates[name].value:{'.1%' if name in SHARES else '.3f'}}"
            for name in _SHORT
            if name in self.estimates
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON of the row with all its replies."""
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
    """Build a row from an evaluation."""
    return ReportRow(
        model, decoding, evaluation, estimate_metrics(evaluation), reliability(evaluation)
    )


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
    """The differences of a row to another one on the same examples, by metric."""

    row: ReportRow
    against: ReportRow
    differences: dict[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """JSON of the comparison."""
        estimates = {name: difference.estimate for name, difference in self.differences.items()}
        return {
            "model": self.row.model,
            "against": self.against.model,
            "decoding": self.row.decoding,
            "against_decoding": self.against.decoding,
            "differences": {name: estimate.value for name, estimate in estimates.items()},
            "intervals": _intervals(estimates),
            "p_values": {name: one.p_value for name, one in self.differences.items()},
        }


def comparison(row: ReportRow, against: ReportRow) -> Comparison:
    """Compare two rows on the same examples, pair by pair."""
    return Comparison(row, against, compare(row.evaluation, against.evaluation))


def comparisons(rows: Iterable[ReportRow], against: Iterable[ReportRow]) -> list[Comparison]:
    """Compare each row with the one that has the same way of decoding, where there is one."""
    others = {row.decoding: row for row in against}
    return [comparison(row, others[row.decoding]) for row in rows if row.decoding in others]


def format_estimate(name: str, estimate: Estimate) -> str:
    """An estimate with its interval as text, shares in per cent."""
    numbers = (estimate.value, estimate.low, estimate.high)
    if name in SHARES:
        return "{:.1f}% ({:.1f} to {:.1f})".format(*(100 * number for number in numbers))
    return "{:.3f} ({:.3f} to {:.3f})".format(*numbers)


def _intervals(estimates: dict[str, Estimate]) -> dict[str, list[float]]:
    return {name: [estimate.low, estimate.high] for name, estimate in estimates.items()}
