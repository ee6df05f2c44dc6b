"""Problems that the doctor finds in a home folder, its repairs, and what it never touches."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock
from permissions import mode

from emojitune.errors import ConfigurationError
from emojitune.inference.decoding import knn
from emojitune.jobs import doctor
from emojitune.settings import Settings
from emojitune.store.files import StoredFile
from emojitune.store.models import FineTunedModel
from emojitune.store.stores import Stores, open_stores


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", cache=tmp_path / "cache")


@pytest.fixture
def stores(settings: Settings) -> Stores:
    return open_stores(settings, "default")


@pytest.fixture
def file(stores: Stores) -> StoredFile:
    return stores.files.add([b"content"], filename="train.jsonl", purpose="fine-tune")


@pytest.fixture
def tuned(stores: Stores, settings: Settings, tiny_base: Path) -> Path:
    """The folder of a fine-tuned model's adapter."""
    from tiny_model import make_adapter

    stores.models.register(FineTunedModel("ft:m", 1, "ftjob-a", "tiny", "h", "a"))
    settings.adapters.mkdir()
    return make_adapter(tiny_base, settings.adapters / "a", seed=1)


def examine(settings: Settings) -> list[doctor.Finding]:
    return doctor.examine(settings, verify=knn.verify)


def test_examples_beside_an_adapter_that_cannot_be_read_are_named(
    settings: Settings, stores: Stores, tuned: Path
) -> None:
    file = tuned / "neighbours.safetensors"
    file.write_bytes(b"no such thing")
    [finding] = examine(settings)
    assert finding.area == "adapters"
    assert "ft:m" in finding.problem
    assert f"remove {file.name} there" in finding.problem


def test_an_intact_home_has_no_findings(settings: Settings, file: StoredFile, tuned: Path) -> None:
    assert examine(settings) == []


def test_a_home_that_others_can_look_into_is_closed_to_them(
    settings: Settings, file: StoredFile
) -> None:
    database, blobs = settings.home / "emojitune.db", settings.files
    database.chmod(0o644)  # as SQLite makes it
    blobs.chmod(0o755)
    mine = settings.home / "mine.txt"
    mine.touch(mode=0o644)
    assert examine(settings) == [], "nobody else gets into the home folder"
    settings.home.chmod(0o755)
    [finding] = examine(settings)
    assert finding.area == "permissions"
    assert "is open to others, and so are in it: emojitune.db, files" in finding.problem
    assert doctor.repair([finding], settings) == []
    assert (mode(database), mode(blobs)) == ("600", "700")
    assert (mode(settings.home), mode(mine)) == ("755", "644"), "these are the user's own"
    assert examine(settings) == []


def test_a_home_that_does_not_exist_has_no_findings_and_is_not_made(settings: Settings) -> None:
    assert examine(settings) == []
    assert not settings.home.exists()


def test_files_whose_bytes_are_missing_or_changed_are_named(
    settings: Settings, stores: Stores, file: StoredFile
) -> None:
    other = stores.files.add([b"other"], filename="other.jsonl", purpose="fine-tune")
    stores.files.path(file.id).unlink()
    stores.files.path(other.id).write_bytes(b"OTHER")
    missing, changed = examine(settings)
    assert file.id in missing.problem
    assert "train.jsonl" in missing.problem
    assert "bytes are missing" in missing.problem
    assert "Upload it again" in missing.problem
    assert other.id in changed.problem
    assert "have changed" in changed.problem
    assert missing.repair is None
    assert doctor.repair([missing, changed], settings) == [missing, changed]
    assert stores.files.get(file.id) == file, "the row stays"


@pytest.mark.parametrize("harm", ["missing", "torn", "a byte"])
def test_an_adapter_that_does_not_verify_is_named(
    settings: Settings, stores: Stores, tuned: Path, harm: str
) -> None:
    if harm == "missing":
        (tuned / "emojitune.json").unlink()
    elif harm == "torn":
        os.truncate(tuned / "adapter_model.safetensors", 100)
    else:
        content = bytearray((tuned / "adapter_model.safetensors").read_bytes())
        content[-1] ^= 1
        (tuned / "adapter_model.safetensors").write_bytes(content)
    [finding] = examine(settings)
    assert finding.area == "adapters"
    assert "ft:m" in finding.problem
    assert "is incomplete" in finding.problem
    assert doctor.repair([finding], settings) == [finding]
    assert stores.models.get("ft:m")


def test_unreferenced_files_are_moved_to_a_folder_for_inspection(
    settings: Settings, file: StoredFile, tuned: Path
) -> None:
    lost = {
        "files": settings.files / "ab" / ("ab" * 32),
        "adapters": settings.adapters / "ftjob-gone-step-9" / "adapter_model.safetensors",
        "runs": settings.runs / "ftjob-gone" / "worker.log",
    }
    for path in lost.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"given by a user")
    findings = examine(settings)
    assert {finding.area for finding in findings} == set(lost)
    assert doctor.repair(findings, settings) == []
    assert examine(settings) == []
    recovered = [p for p in (settings.home / "recovered").rglob("*") if p.is_file()]
    assert [path.read_bytes() for path in recovered] == [b"given by a user"] * 3


def test_remains_of_interrupted_writes_are_deleted(
    settings: Settings, stores: Stores, file: StoredFile, tuned: Path
) -> None:
    job = stores.jobs.create(model="m", training_file=file.id, hyperparameters={})
    left = [
        settings.files / "incoming-0123",
        settings.adapters / "ftjob-x-step-1.partial" / "half",
        settings.runs / job.id / "checkpoints" / "saving.partial" / "half",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    findings = examine(settings)
    assert [finding.area for finding in findings] == ["temporaries"] * 3
    assert doctor.repair(findings, settings) == []
    assert not any(path.exists() for path in left)
    assert stores.files.path(file.id).read_bytes() == b"content"
    assert (settings.runs / job.id / "checkpoints").exists()


def test_checkpoints_of_a_job_that_has_ended_can_go(
    settings: Settings, stores: Stores, file: StoredFile
) -> None:
    job = stores.jobs.create(model="m", training_file=file.id, hyperparameters={})
    checkpoints = settings.runs / job.id / "checkpoints"
    checkpoints.mkdir(parents=True)
    assert examine(settings) == []
    stores.jobs.transition(job.id, "cancelled", sources=["validating_files"])
    [finding] = examine(settings)
    doctor.repair([finding], settings)
    assert not checkpoints.exists()
    assert checkpoints.parent.exists(), "its log stays"


def test_half_a_base_model_in_the_cache_is_fetched_again_once_it_is_deleted(
    settings: Settings,
) -> None:
    half = settings.cache / "models" / "base-0123"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    [finding] = examine(settings)
    assert "no weights" in finding.problem
    settings.home.mkdir()
    assert doctor.repair([finding], settings) == []
    assert not half.exists()


def test_a_torn_database_is_named_and_left_alone(settings: Settings, stores: Stores) -> None:
    for number in range(300):
        stores.jobs.create(model="m" * 900, training_file=f"file-{number}", hyperparameters={})
    path = settings.home / "emojitune.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
    path.write_bytes(content)
    findings = examine(settings)
    assert findings
    assert all(finding.area == "database" for finding in findings)
    assert all("last backup" in finding.problem for finding in findings)
    assert doctor.repair(findings, settings) == findings
    assert path.read_bytes() == content


def test_nothing_is_repaired_while_a_server_runs(
    settings: Settings, stores: Stores, file: StoredFile
) -> None:
    (settings.files / "incoming-0123").write_text("an upload that is under way")
    with FileLock(settings.home / "server.lock"):
        assert examine(settings) == [], "what is being written is not left over"
        with pytest.raises(ConfigurationError, match="Stop it first"):
            doctor.repair([], settings)
