"""Intervals and tests against values computed by hand, or by enumerating all cases."""

import itertools
import math

import numpy as np
import pytest

from emojitune.evaluation.intervals import bootstrap_estimates, sign_flip_test


def binomial_quantile(share: float, n: int, p: float) -> float:
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= share:
            return k / n
    raise AssertionError


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    # Resampling 40 replies of which 12 hit makes Binomial(40, 0.3) hits.
    hits = np.array([1.0] * 12 + [0.0] * 28)
    [estimate] = bootstrap_estimates(
        lambda counts: np.array([counts @ hits / counts.sum()]), np.arange(40)
    )
    assert estimate.value == pytest.approx(0.3)
    assert estimate.low == pytest.approx(binomial_quantile(0.025, 40, 0.3), abs=1 / 40)
    assert estimate.high == pytest.approx(binomial_quantile(0.975, 40, 0.3), abs=1 / 40)


def test_clusters_are_resampled_as_units() -> None:
    # Ten copies of each of four prompts know no more than the four do.
    values = np.array([0.0, 1.0, 0.0, 1.0])
    [once] = bootstrap_estimates(
        lambda counts: np.array([counts @ values / counts.sum()]), np.arange(4)
    )
    copies, clusters = np.repeat(values, 10), np.repeat(np.arange(4), 10)
    [tenfold] = bootstrap_estimates(
        lambda counts: np.array([counts @ copies / counts.sum()]), clusters
    )
    assert (tenfold.value, tenfold.low, tenfold.high) == pytest.approx(
        (once.value, once.low, once.high)
    )


def test_equal_numbers_have_equal_intervals_every_time() -> None:
    values = np.linspace(0, 1, 30)
    once, again = (
        bootstrap_estimates(lambda w: np.array([w @ values]), np.arange(30)) for _ in range(2)
    )
    assert once == again


def exact_p(sums: list[float]) -> float:
    """The p-value over all signs."""
    seen = abs(sum(sums))
    signs = list(itertools.product((-1, 1), repeat=len(sums)))
    return sum(abs(np.dot(one, sums)) >= seen - 1e-9 for one in signs) / len(signs)


def test_the_paired_test_agrees_with_enumerating_all_signs() -> None:
    differences = [1 / 3, 0.5, -0.2, 1.0, 0.25, 0.8, -0.5, 0.1, 0.3, 0.7]
    [p] = sign_flip_test(np.array(differences)[:, None], np.arange(10))
    assert p == pytest.approx(exact_p(differences), abs=0.015)


def test_for_hits_and_misses_the_paired_test_is_mcnemars() -> None:
    # 9 prompts that only the one gets right, 2 that only the other does, 20 without a difference.
    differences = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 20)[:, None]
    [p] = sign_flip_test(differences, np.arange(31))
    mcnemar = 2 * sum(math.comb(11, k) for k in range(3)) / 2**11
    assert p == pytest.approx(mcnemar, abs=0.01)


def test_clusters_change_signs_as_units() -> None:
    differences, clusters = [1.0, 1.0, 1.0, -1.0, 1.0, 1.0], [0, 0, 1, 1, 2, 3]
    [p] = sign_flip_test(np.array(differences)[:, None], np.array(clusters))
    assert p == pytest.approx(exact_p([2.0, 0.0, 1.0, 1.0]), abs=0.015)


def test_equal_models_do_not_differ() -> None:
    assert sign_flip_test(np.zeros((5, 1)), np.arange(5)) == [1.0]
