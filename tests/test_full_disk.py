"""A server on a disk that is really full: a small volume, where the system permits to mount one."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import chaos
import pytest
from openai import InternalServerError

from emojitune.errors import StorageError
from emojitune.settings import Settings
from emojitune.store import backup
from emojitune.store.models import FineTunedModel
from emojitune.store.stores import open_stores

MEGABYTE = 1 << 20
SIZE = 96 * MEGABYTE


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this user may not mount a volume")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def back_up(home: Path, target: Path) -> str:
    """The error message of a failing `emojitune backup`."""
    command = [sys.executable, "-m", "emojitune.cli.main", "backup", str(target)]
    ran = subprocess.run([*command, "--home", str(home)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Traceback" not in ran.stderr
    return " ".join(ran.stderr.split())


def test_a_backup_that_does_not_fit_is_an_error_and_leaves_nothing(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, target = tmp_path / "home", volume / "copies" / "copy"
    stores = open_stores(Settings(home=home), "default")
    stores.files.add([bytes(2 * MEGABYTE)], filename="large", purpose="fine-tune")
    adapter = home / "adapters" / "a"
    adapter.mkdir(parents=True)
    (adapter / "adapter_model.safetensors").write_bytes(bytes(MEGABYTE))
    stores.models.register(FineTunedModel("ft:a", 1, "ftjob-a", "b", "h", "a"))
    filler = fill(volume, leaving=MEGABYTE)
    message = back_up(home, target)
    assert f"The disk at {volume} is too full" in message
    assert "it takes 3." in message
    assert " MB, and 1.0 MB are free. Nothing of it was left there" in message
    assert list(volume.iterdir()) == [filler]

    # The disk fills up meanwhile: while the database, the file or the adapter is copied.
    monkeypatch.setattr(backup, "_require_room", lambda *_: None)
    for leaving in (0, MEGABYTE, 5 * MEGABYTE // 2):
        filler.unlink()
        fill(volume, leaving=leaving)
        with pytest.raises(StorageError, match="too full for a backup") as caught:
            backup.back_up(home, volume / "copy")
        assert caught.value.code == "disk_full"
        assert list(volume.iterdir()) == [filler]


def test_a_backup_to_a_read_only_disk_or_a_mount_point_is_an_error(
    volume: Path, tmp_path: Path
) -> None:
    open_stores(Settings(home=tmp_path / "home"), "default")
    message = back_up(tmp_path / "home", volume)
    assert f"Name a folder on it: {volume}/emojitune-backup" in message
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)
    message = back_up(tmp_path / "home", volume / "copy")
    assert f"{volume}/copy cannot be (Read-only file system: " in message


@pytest.fixture
def serving(request: pytest.FixtureRequest, volume: Path) -> Iterator[chaos.Chaos]:
    on_it = chaos.Chaos(volume, seed=1, **getattr(request, "param", {}))
    with on_it.serving():
        on_it.retrying(on_it.client.models.list)
        yield on_it


def fill(volume: Path, *, leaving: int = 0) -> Path:
    """Fill the volume until only `leaving` bytes are free."""
    filler = volume / "filler"
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while (free := os.statvfs(volume)).f_bavail * free.f_frsize > leaving:
            file.write(bytes(4096))
    return filler


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


@pytest.mark.slow
def test_an_upload_that_does_not_fit_is_rejected_and_harms_nothing(
    serving: chaos.Chaos, volume: Path, tmp_path: Path
) -> None:
    client = serving.client.with_options(max_retries=0)
    path = chaos.training_file(tmp_path)
    kept = client.files.create(file=path, purpose="fine-tune")
    with pytest.raises(InternalServerError) as refused:
        client.files.create(file=("large.jsonl", bytes(SIZE)), purpose="fine-tune")
    assert (refused.value.status_code, refused.value.code) == (503, "disk_full")
    assert [file.id for file in client.files.list()] == [kept.id]
    assert client.files.content(kept.id).read() == path.read_bytes()
    client.files.create(file=("next.jsonl", path.read_bytes()), purpose="fine-tune")
    assert not list(volume.rglob("incoming-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "serving", [{"epochs": 1, "checkpoint_seconds": 3600.0}], indirect=True, ids=[""]
)
def test_a_job_on_a_full_disk_waits_and_ends_as_if_undisturbed(
    serving: chaos.Chaos, volume: Path, tmp_path: Path
) -> None:
    # No checkpoint comes before the end: half of one that did not fit would give room back, and the
    # job could say why it failed. So a step is the first thing that cannot be written.
    path = chaos.training_file(tmp_path, examples=chaos.STEPS)
    job = start(serving, path, seed=1)
    filler = fill(volume)
    stopped_at = wait_until_steady(partial(serving.steps, job))
    assert 0 < stopped_at < chaos.STEPS
    assert serving.follow(job) not in ("succeeded", "failed")
    log = (serving.folder / "server.log").read_text()
    assert "Jobs wait, and none is started: The disk is full" in log
    filler.unlink()
    until(lambda: serving.follow(job) in ("succeeded", "failed"))
    steps_logged = [event.message for event in serving.client.fine_tuning.jobs.list_events(job.id)]
    assert any("(the disk is full)" in message for message in steps_logged), "why its worker ended"
    reference = chaos.reference(serving, path, job.seed)
    assert serving.outcome(job, reference).failures == ()


@pytest.mark.slow
@pytest.mark.parametrize("serving", [{"layers": 80}], indirect=True, ids=["checkpoints of 8 MB"])
def test_a_job_whose_checkpoint_does_not_fit_fails_and_the_next_one_trains(
    serving: chaos.Chaos, volume: Path, tmp_path: Path
) -> None:
    path = chaos.training_file(tmp_path)
    job = start(serving, path, seed=1)

    def ended() -> bool:
        # For the database, whose log takes four before it is used again. More than once: a
        # checkpoint that was being written may have found room, and older ones then made some.
        fill(volume, leaving=5 * MEGABYTE)
        return serving.follow(job) in ("succeeded", "failed")

    until(ended)
    failed = serving.client.fine_tuning.jobs.retrieve(job.id)
    assert failed.error is not None
    assert failed.error.code == "disk_full", failed.error.message
    [last] = serving.client.fine_tuning.jobs.list_events(job.id, limit=1).data
    assert (last.level, last.message) == ("error", failed.error.message)
    (volume / "filler").unlink()
    start(serving, path, seed=2)


def start(serving: chaos.Chaos, path: Path, seed: int) -> chaos.FollowedJob:
    """Start a job and wait until it trains."""
    serving.create(path, seed)
    job = serving.jobs[-1]
    until(lambda: serving.steps(job) > 5)
    return job


def wait_until_steady(number: Callable[[], int]) -> int:
    """The number once it has not changed for two seconds."""
    seen, since = number(), time.monotonic()

    def steady() -> bool:
        nonlocal seen, since
        if (now := number()) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 2.0

    until(steady)
    return seen
