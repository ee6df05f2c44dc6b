"""The plan of a job: from the requested hyperparameters ("auto", multipliers) to concrete numbers.

The one place where defaults are decided, each with its reason in words; the job reports these as
events. No torch: a plan is made before anything heavy is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

from emojitune.training.config import TrainingConfig

# OpenAI's own defaults for "auto": three epochs, more for tiny files, fewer for huge ones.
_EPOCHS = 3
_MIN_EXAMPLES_SEEN = 100
_MAX_EXAMPLES_SEEN = 25_000
_MAX_AUTO_EPOCHS = 25

_BATCH_SIZE = 16
_MIN_STEPS_PER_EPOCH = 8

# The peak learning rate falls with the square root of the steps: with few steps, each does more.
_STEPS_AT_FULL_RATE = 60

# Label smoothing over a closed set of replies.
_SMOOTHING = 0.15


@dataclass(frozen=True, slots=True)
class Plan:
    """A job's numbers.

    Attributes:
        config: What training runs with, but for the numbers that depend on the loaded model and
            the device: see load.py.
        hyperparameters: The resolved hyperparameters, as the job object shows them.
        reasons: A sentence for each number that was decided here.
    """

    config: TrainingConfig
    hyperparameters: dict[str, int | float]
    reasons: tuple[str, ...]


def make_plan(
    requested: Mapping[str, Any],
    *,
    examples: int,
    seed: int,
    learning_rate: float,
    meanings: int = 0,
    labels: int = 0,
) -> Plan:
    """Resolve a job's hyperparameters.

    Args:
        requested: `n_epochs`, `batch_size`, `learning_rate_multiplier`; absent means "auto".
        examples: Training examples.
        learning_rate: The base model's own peak for few steps: a multiplier of 1.
        meanings: Additional examples that explain the labels.
        labels: Size of the closed set of replies; 0 where it is open.
    """
    epochs, why_epochs = _epochs(requested.get("n_epochs", "auto"), examples)
    batch_size, why_batch = _batch_size(requested.get("batch_size", "auto"), examples)
    steps = epochs * ceil((examples + meanings) / batch_size)
    multiplier, why_rate = _multiplier(
        requested.get("learning_rate_multiplier", "auto"), learning_rate, steps
    )
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate * multiplier,
        seed=seed,
        smoothing=_SMOOTHING if labels > 1 else 0.0,
    )
    return Plan(
        config=config,
        hyperparameters={
            "n_epochs": epochs,
            "batch_size": batch_size,
            "learning_rate_multiplier": multiplier,
        },
        reasons=(why_epochs, why_batch, why_rate, *_meanings(meanings), *_smoothing(labels)),
    )


def _meanings(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    why = "two additional examples per label, since the emoji vocabulary has all of them"
    return (f"meanings {count}: {why}",)


def _smoothing(labels: int) -> tuple[str, ...]:
    if labels < 2:
        return ()
    return (f"smoothing {_SMOOTHING}: label smoothing over the closed set of {labels} replies",)


def _epochs(requested: int | str, examples: int) -> tuple[int, str]:
    if requested != "auto":
        return int(requested), f"n_epochs {requested}: as requested"
    if examples * (_EPOCHS + 1) <= _MIN_EXAMPLES_SEEN:
        epochs = min(_MAX_AUTO_EPOCHS, _MIN_EXAMPLES_SEEN // examples)
        return epochs, f"n_epochs {epochs}: auto, more than {_EPOCHS} for only {examples} examples"
    if examples * _EPOCHS > _MAX_EXAMPLES_SEEN:
        epochs = max(1, _MAX_EXAMPLES_SEEN // examples)
        return epochs, f"n_epochs {epochs}: auto, fewer than {_EPOCHS} for {examples} examples"
    return _EPOCHS, f"n_epochs {_EPOCHS}: auto"


def _batch_size(requested: int | str, examples: int) -> tuple[int, str]:
    if requested != "auto":
        return int(requested), f"batch_size {requested}: as requested"
    size = _BATCH_SIZE
    while size > 1 and examples < size * _MIN_STEPS_PER_EPOCH:
        size //= 2
    if size == _BATCH_SIZE:
        return size, f"batch_size {size}: auto"
    return size, f"batch_size {size}: auto, small so that {examples} examples make enough steps"


def _multiplier(requested: float | str, learning_rate: float, steps: int) -> tuple[float, str]:
    if requested == "auto":
        multiplier = round(min(1.0, sqrt(_STEPS_AT_FULL_RATE / steps)), 3)
        why = "auto" if multiplier == 1.0 else f"auto, less than 1 for {steps} steps"
    else:
        multiplier, why = float(requested), "as requested"
    rate = learning_rate * multiplier
    reason = f"learning_rate_multiplier {multiplier:g}: {why}, a peak learning rate of {rate:g}"
    return multiplier, reason
