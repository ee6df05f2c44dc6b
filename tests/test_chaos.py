"""The promise in short; `make chaos` is the long form."""

from pathlib import Path

import chaos
import pytest


@pytest.mark.slow
def test_whatever_is_killed_every_job_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    kills, outcomes = chaos.run(tmp_path, jobs=2, kills=4, seed=3)
    assert kills.total() == 4
    assert [outcome.faults for outcome in outcomes] == [(), ()]
