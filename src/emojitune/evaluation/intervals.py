"""How sure a figure is: bootstrap intervals, and paired tests. The same seed, the same numbers.

Knows numbers only. Observations come in clusters that stand or fall together (the same prompt
asked of models from several rounds); clusters are what is drawn and what changes sides.
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
"""How often each of N observations counts, to K figures."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_estimates(statistic: Statistic, clusters: NDArray[np.int64]) -> list[Estimate]:
    """K figures with percentile intervals, from clusters drawn again with replacement.

    Args:
        clusters: (N,), the cluster of each observation, counted from 0.
    """
    random = np.random.default_rng(_SEED)
    size = int(clusters.max()) + 1

    def drawn() -> Floats:
        counts = np.bincount(random.integers(size, size=size), minlength=size)[clusters]
        return statistic(counts.astype(np.float64))

    value = statistic(np.ones(len(clusters)))
    ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile([drawn() for _ in range(RESAMPLES)], ends, axis=0)
    return [Estimate(*map(float, estimate)) for estimate in zip(value, low, high, strict=True)]


def sign_flip_test(differences: Floats, clusters: NDArray[np.int64]) -> Floats:
    """Two-sided p-values (K,) of differences (N, K) between two models on the same observations.

    If both were alike, each cluster's difference could as well have the other sign: how often would
    the sum then be as far from zero? For hits and misses this is McNemar's exact test, up to the
    number of flips that are drawn.
    """
    random = np.random.default_rng(_SEED)
    sums = np.zeros((int(clusters.max()) + 1, differences.shape[1]))
    np.add.at(sums, clusters, differences)
    seen = np.abs(sums.sum(axis=0))
    as_far = np.zeros(differences.shape[1])
    for _ in range(FLIPS):
        signs = random.choice((-1.0, 1.0), size=len(sums))
        as_far += np.abs(signs @ sums) >= seen - 1e-9  # sums of fractions are not exact
    return (as_far + 1) / (FLIPS + 1)
