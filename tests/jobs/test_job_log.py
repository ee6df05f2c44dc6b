"""`estimated_finish` on a clock of its own."""

import time

import pytest

from emojitune.jobs.job_log import FinishEstimate

EPOCHS, STEPS, AFTER_TRAINING = 3, 36, 12
STEP, FIRST_STEP, EPOCH_END = 0.8, 4.0, 3.0  # seconds, of which the end of an epoch is no step


@pytest.mark.parametrize("jump", [0.0, -7200.0, 7200.0])
def test_the_estimated_finish_is_within_a_quarter_once_a_tenth_has_run(
    monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """With a slow first step, pauses between epochs, a wall clock that is set meanwhile, and work
    after the last step."""
    clock, wall = 1000.0, 1_000_000.0
    estimate, reported = FinishEstimate(AFTER_TRAINING), []
    for step in range(1, EPOCHS * STEPS + 1):
        seconds = FIRST_STEP if step == 1 else STEP
        seconds += EPOCH_END if step > 1 and step % STEPS == 1 else 0.0
        clock, wall = clock + seconds, wall + seconds + (jump if step == 5 else 0.0)
        monkeypatch.setattr(time, "monotonic", lambda now=clock: now)
        monkeypatch.setattr(time, "time", lambda now=wall: now)
        if (finish := estimate.after(step, EPOCHS * STEPS)) is not None:
            reported.append((step, finish, wall))
    wall += AFTER_TRAINING * STEP
    assert len(reported) > 30, "it is updated again and again"
    for step, finish, at in reported:
        if step >= EPOCHS * STEPS / 10:
            assert finish - at == pytest.approx(wall - at, rel=0.25, abs=5)
