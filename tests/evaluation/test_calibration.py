"""Confidence against accuracy, on numbers computed by hand."""

import numpy as np
import pytest

from emojitune.evaluation.calibration import Bin, expected_calibration_error, reliability_curve

# Two bins: three replies of 0.82 on average, of which two hit; two of 0.15, of which one does.
CONFIDENCES = np.array([0.8, 0.82, 0.84, 0.1, 0.2 - 1e-9])
HITS = np.array([1.0, 1.0, 0.0, 1.0, 0.0])
EQUAL = np.full(5, 1 / 5)


def test_reliability_curve() -> None:
    low, high = reliability_curve(CONFIDENCES, HITS)
    assert (low.count, high.count) == (2, 3)
    assert (low.confidence, low.accuracy) == pytest.approx((0.15, 0.5))
    assert (high.confidence, high.accuracy) == pytest.approx((0.82, 2 / 3))


def test_expected_calibration_error() -> None:
    error = 2 / 5 * abs(0.15 - 0.5) + 3 / 5 * abs(0.82 - 2 / 3)
    assert expected_calibration_error(CONFIDENCES, HITS, EQUAL) == pytest.approx(error)
    doubled = np.array([0, 0, 0, 0.5, 0.5])
    assert expected_calibration_error(CONFIDENCES, HITS, doubled) == pytest.approx(0.35)


def test_certainty_has_a_bin() -> None:
    assert reliability_curve(np.array([1.0]), np.array([1.0])) == [Bin(1, 1.0, 1.0)]
    assert expected_calibration_error(np.array([1.0]), np.array([1.0]), np.array([1.0])) == 0
