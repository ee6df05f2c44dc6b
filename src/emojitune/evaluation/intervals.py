"""Bootstrap intervals and paired permutation tests, with a fixed seed.

Knows numbers only. Observations come in clusters that depend on each other, such as the replies of
several rounds to one prompt: resampling draws clusters, and permutation flips clusters.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
FLIPS = 10_000
CONFIDENCE = 0.95
_SEED = 0

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Computes K numbers from the weights (N,) of N observations."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_estimates(statistic: Statistic, clusters: NDArray[np.int64]) -> list[Estimate]:
    """K estimates with percentile intervals, from clusters resampled with replacement.

    Args:
        clusters: (N,), the cluster of each observation, numbered from 0.
    """
    random = np.random.default_rng(_SEED)
    size = int(clusters.max()) + 1

    def resample() -> Floats:
        counts = np.bincount(random.integers(size, size=size), minlength=size)[clusters]
        return statistic(counts.astype(np.float64))

    value = statistic(np.ones(len(clusters)))
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile([resample() for _ in range(RESAMPLES)], ends, axis=0)
    return [Estimate(*map(float, estimate)) for estimate in zip(value, low, high, strict=True)]


def sign_flip_test(differences: Floats, clusters: NDArray[np.int64]) -> Floats:
    """Two-sided p-values (K,) of differences (N, K) between two models on the same observations.

    If both were equally good, each cluster's difference could as well have the opposite sign: the
    p-value is how often the sum would then be as far from zero. For hits and misses this is
    McNemar's exact test, up to the number of flips that are drawn.
    """
    random = np.random.default_rng(_SEED)
    sums = np.zeros((int(clusters.max()) + 1, differences.shape[1]))
    np.add.at(sums, clusters, differences)
    observed = np.abs(sums.sum(axis=0))
    as_far = np.zeros(differences.shape[1])
    for _ in range(FLIPS):
        signs = random.choice((-1.0, 1.0), size=len(sums))
        as_far += np.abs(signs @ sums) >= observed - 1e-9  # sums of fractions are not exact
    return (as_far + 1) / (FLIPS + 1)
