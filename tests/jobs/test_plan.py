from dataclasses import replace
from typing import Any

import pytest

from emojitune.jobs.plan import Plan, make_plan
from emojitune.training.config import TrainingConfig


def plan(examples: int, **requested: Any) -> Plan:
    return make_plan(requested, examples=examples, seed=7, learning_rate=2e-3)


@pytest.mark.parametrize(
    ("examples", "epochs", "batch_size", "multiplier"),
    [(10, 10, 1, 0.775), (50, 3, 4, 1.0), (569, 3, 16, 0.745), (20_000, 1, 16, 0.219)],
)
def test_auto_fits_the_number_of_examples(
    examples: int, epochs: int, batch_size: int, multiplier: float
) -> None:
    made = plan(examples, n_epochs="auto", batch_size="auto", learning_rate_multiplier="auto")
    assert made.hyperparameters == {
        "n_epochs": epochs,
        "batch_size": batch_size,
        "learning_rate_multiplier": multiplier,
    }
    assert made.config.learning_rate == pytest.approx(2e-3 * multiplier)
    assert made == plan(examples), "without a request it is auto"


def test_requested_numbers_are_used() -> None:
    requested = {"n_epochs": 7, "batch_size": 3, "learning_rate_multiplier": 0.5}
    made = plan(569, **requested)
    assert made.hyperparameters == requested
    assert made.config == TrainingConfig(epochs=7, batch_size=3, learning_rate=1e-3, seed=7)
    assert all("as requested" in reason for reason in made.reasons)


@pytest.mark.parametrize("examples", [1, 10, 25, 26, 30, 33, 34, 127, 128, 8333, 8334, 20_000])
def test_every_number_has_a_reason_that_is_true(examples: int) -> None:
    made = plan(examples)
    epochs, batch_size, rate = made.reasons
    n_epochs, size, multiplier = made.hyperparameters.values()
    assert epochs.startswith(f"n_epochs {n_epochs}: auto")
    assert ("more than 3" in epochs) == (n_epochs > 3)
    assert ("fewer than 3" in epochs) == (n_epochs < 3)
    assert batch_size.startswith(f"batch_size {size}: auto")
    assert ("small" in batch_size) == (size < 16)
    assert rate.startswith(f"learning_rate_multiplier {multiplier:g}: auto, ")
    assert rate.endswith(f" a peak learning rate of {2e-3 * multiplier:g}")
    steps = n_epochs * -(-examples // size)
    assert ("less than 1" in rate) == (multiplier < 1) == (steps > 60)
    assert multiplier < 1 or "steps" not in rate


@pytest.mark.parametrize("examples", [1, 10, 33, 100, 569, 9_000, 100_000])
def test_auto_neither_undertrains_nor_overtrains(examples: int) -> None:
    made = plan(examples).config
    seen = examples * made.epochs
    assert 1 <= made.epochs <= 25
    assert seen <= max(25_000, examples)
    assert seen > 75 or made.epochs == 25
    assert made.batch_size == 1 or examples // made.batch_size >= 8


def test_additional_examples_of_meanings_are_reported() -> None:
    requested: dict[str, Any] = {}
    made = make_plan(requested, examples=569, seed=7, learning_rate=2e-3, meanings=698)
    assert replace(made.config, learning_rate=0.0) == replace(plan(569).config, learning_rate=0.0)
    assert made.config.learning_rate == pytest.approx(1e-3), "they are steps, too: 240"
    assert made.reasons[-1].startswith("meanings 698: ")
    assert "meanings" not in " ".join(plan(569).reasons)


@pytest.mark.parametrize(("labels", "smoothing"), [(0, 0.0), (1, 0.0), (349, 0.15)])
def test_a_closed_set_of_replies_is_smoothed_over(labels: int, smoothing: float) -> None:
    made = make_plan({}, examples=569, seed=7, learning_rate=2e-3, labels=labels)
    assert made.config == replace(plan(569).config, smoothing=smoothing)
    reasons = [reason for reason in made.reasons if reason.startswith("smoothing 0.15: ")]
    assert len(reasons) == bool(smoothing)
