"""Whether a model knows how sure it may be: confidence against accuracy.

Knows numbers only.
"""

from dataclasses import dataclass

import numpy as np

from emojitune.evaluation.intervals import Floats

BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Replies of similar confidence: their number, mean confidence and share of hits."""

    count: int
    confidence: float
    accuracy: float


def reliability_curve(confidences: Floats, hits: Floats) -> list[Bin]:
    """The bins that hold replies, the least confident first; of N confidences and hits (0 or 1)."""
    place = _bin(confidences)
    inside = [place == number for number in range(BINS) if (place == number).any()]
    return [
        Bin(int(here.sum()), float(confidences[here].mean()), float(hits[here].mean()))
        for here in inside
    ]


def expected_calibration_error(confidences: Floats, hits: Floats, weights: Floats) -> float:
    """The mean distance of confidence and accuracy, bin by bin, each as heavy as its replies."""
    gaps = np.bincount(_bin(confidences), weights * (confidences - hits), minlength=BINS)
    return float(np.abs(gaps).sum())


def _bin(confidences: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The bin of each confidence: `BINS` of equal width, the last with both its ends."""
    return np.minimum((confidences * BINS).astype(np.int64), BINS - 1)
