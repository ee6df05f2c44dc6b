"""Estimates of an evaluation's metrics, and comparisons of two on the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emojitune.dataset.example import TrainingExample
from emojitune.evaluation.calibration import Bin, expected_calibration_error, reliability_curve
from emojitune.evaluation.evaluate import Evaluation
from emojitune.evaluation.intervals import Estimate, Floats, bootstrap_estimates, sign_flip_test
from emojitune.evaluation.metrics import METRICS, TEXT_METRICS

CALIBRATION_ERROR = "expected_calibration_error"
SECONDS = "seconds_per_reply"
TITLES = {
    **{metric.name: metric.title for metric in (*METRICS, *TEXT_METRICS)},
    CALIBRATION_ERROR: "expected calibration error",
    SECONDS: "seconds per reply",
}
SHARES = frozenset(m.name for m in (*METRICS, *TEXT_METRICS) if m.is_share)


@dataclass(frozen=True, slots=True)
class Difference:
    """One model's metric minus another's, and the p-value of a paired test."""

    estimate: Estimate
    p_value: float


def estimate_metrics(evaluation: Evaluation) -> dict[str, Estimate]:
    """Estimates by name; calibration and seconds only where all replies have the numbers."""
    values, hits = _values(evaluation), _hits(evaluation)
    confidences = _array_if_complete([one.reply.confidence for one in evaluation.scored])
    seconds = _array_if_complete([one.reply.seconds for one in evaluation.scored])
    names = [*evaluation.metrics]
    names += [CALIBRATION_ERROR] * (confidences is not None) + [SECONDS] * (seconds is not None)

    def statistic(counts: Floats) -> Floats:
        # Divided last, so that a share of all replies is exactly 1.
        means = list(counts @ values / counts.sum())
        if confidences is not None:
            means.append(expected_calibration_error(confidences, hits, counts / counts.sum()))
        if seconds is not None:
            means.append(counts @ seconds / counts.sum())
        return np.array(means)

    return dict(zip(names, bootstrap_estimates(statistic, _clusters(evaluation)), strict=True))


def reliability(evaluation: Evaluation) -> list[Bin]:
    """The reliability curve; empty if a reply has no confidence."""
    confidences = _array_if_complete([one.reply.confidence for one in evaluation.scored])
    return [] if confidences is None else reliability_curve(confidences, _hits(evaluation))


def compare(one: Evaluation, other: Evaluation) -> dict[str, Difference]:
    """`one` minus `other`, by metric; both have scored the same examples in the same order."""
    assert [s.example for s in one.scored] == [s.example for s in other.scored]
    assert one.metrics == other.metrics
    differences, clusters = _values(one) - _values(other), _clusters(one)
    estimates = bootstrap_estimates(lambda counts: counts @ differences / counts.sum(), clusters)
    p_values = sign_flip_test(differences, clusters)
    return {
        metric: Difference(estimate, float(p))
        for metric, estimate, p in zip(one.metrics, estimates, p_values, strict=True)
    }


def _values(evaluation: Evaluation) -> Floats:
    """The values of all metrics: (examples, metrics)."""
    return np.array([[one.values[m] for m in evaluation.metrics] for one in evaluation.scored])


def _hits(evaluation: Evaluation) -> Floats:
    return np.array([float(one.hit) for one in evaluation.scored])


def _array_if_complete(numbers: Sequence[float | None]) -> Floats | None:
    present = [number for number in numbers if number is not None]
    return np.array(present) if len(present) == len(numbers) else None


def _clusters(evaluation: Evaluation) -> NDArray[np.int64]:
    """The cluster of each reply: equal examples are one observation, made several times."""
    clusters: dict[TrainingExample, int] = {}
    return np.array([clusters.setdefault(one.example, len(clusters)) for one in evaluation.scored])
