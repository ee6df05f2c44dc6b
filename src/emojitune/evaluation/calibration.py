"""Calibration: the confidence of replies against their accuracy.

Knows numbers only.
"""

from dataclasses import dataclass

import numpy as np

from emojitune.evaluation.intervals import Floats

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of replies with similar confidence: their number, mean confidence and accuracy."""

    count: int
    confidence: float
    accuracy: float


def reliability_curve(confidences: Floats, hits: Floats) -> list[Bin]:
    """The bins of N replies, the least confident first, without empty ones; a hit is 1, else 0."""
    bins = _bin(confidences)
    members = [bins == number for number in range(BINS) if (bins == number).any()]
    return [
        Bin(int(inside.sum()), float(confidences[inside].mean()), float(hits[inside].mean()))
        for inside in members
    ]


def expected_calibration_error(confidences: Floats, hits: Floats, weights: Floats) -> float:
    """The mean distance of confidence and accuracy over the bins, weighted by their replies.

    Args:
        weights: (N,), the weight of each reply; they sum to 1.
    """
    gaps = np.bincount(_bin(confidences), weights * (confidences - hits), minlength=BINS)
    return float(np.abs(gaps).sum())


def _bin(confidences: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bin of each confidence: bins have equal width, and the last one includes 1."""
    return np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
