"""A short run of random kills; `make chaos` is the long one."""

import signal
import time
from pathlib import Path

import chaos
import pytest


@pytest.mark.slow
def test_after_any_kills_every_job_ends_as_if_undisturbed(tmp_path: Path) -> None:
    kills, outcomes = chaos.run(tmp_path, jobs=2, kills=3, seed=3)
    assert kills.total() == 3
    assert len(outcomes) >= 2
    assert {outcome.failures for outcome in outcomes} == {()}


@pytest.mark.slow
def test_a_terminated_server_saves_its_job_and_exits_within_ten_seconds(
    tmp_path: Path,
) -> None:
    chaotic = chaos.Chaos(tmp_path, seed=1)
    server = chaotic.start()
    chaotic.create(chaos.training_file(tmp_path), seed=1)
    [job] = chaotic.jobs
    chaotic.client.close()
    while not chaotic.steps(job):
        time.sleep(0.05)
    started = time.monotonic()
    server.send_signal(signal.SIGTERM)
    server.wait(15)
    assert time.monotonic() - started < 10
    assert chaotic.stores.jobs.get(job.id).status == "queued"
    assert chaotic.stores.leases.all() == []
    assert list((chaotic.settings.runs / job.id / "checkpoints").glob("step-*"))
