"""A copy of a home folder that is being written to."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from permissions import mode, modes

from emojitune.errors import ConfigurationError
from emojitune.store import backup
from emojitune.store.backup import back_up
from emojitune.store.database import Database, open_database
from emojitune.store.files import FileStore
from emojitune.store.models import FineTunedModel, ModelStore


def adapter(home: Path, name: str, models: ModelStore) -> Path:
    folder = home / "adapters" / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_text(name)
    models.register(FineTunedModel(f"ft:{name}", 1, "ftjob-a", "b", "h", name))
    return folder


def test_a_backup_is_consistent_whatever_is_added_and_deleted_meanwhile(
    database: Database, files: FileStore, models: ModelStore, tmp_path: Path
) -> None:
    home, done = tmp_path / "home", threading.Event()
    (home / "api_key").write_text("sk-mine")
    adapter(home, "a", models)
    kept = files.add([b"kept"], filename="kept", purpose="fine-tune")

    def write() -> None:
        number = 0
        while not done.is_set():
            number += 1
            name = f"{number}"
            added = files.add([name.encode()], filename=name, purpose="fine-tune")
            if number % 2:
                files.delete(added.id)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            made = back_up(home, tmp_path / f"copy-{number}")
            assert made.missing == ()
    finally:
        done.set()
        writer.join()
    for number in range(5):
        copy = tmp_path / f"copy-{number}"
        opened = open_database(copy)
        assert opened.damage() == []
        there = FileStore(opened, "default", copy / "files")
        assert there.get(kept.id) == kept
        for file in there.all():
            expected = b"kept" if file == kept else file.filename.encode()
            assert there.path(file.id).read_bytes() == expected
        assert ModelStore(opened, "default").get("ft:a")
        assert (copy / "adapters" / "a" / "adapter_model.safetensors").read_text() == "a"
        assert (copy / "api_key").read_text() == "sk-mine"
        opened.close()
    assert not list(tmp_path.glob("*.partial"))


def test_a_copy_is_its_owners_alone_from_the_first_moment_on(
    database: Database,
    files: FileStore,
    models: ModelStore,
    tmp_path: Path,
    no_umask: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, target = tmp_path / "home", tmp_path / "new" / "copy"
    (home / "api_key").write_text("sk-mine")
    adapter(home, "a", models)
    files.add([b"kept"], filename="kept", purpose="fine-tune")
    assert ("file", "666") in modes(home), "of the adapter, whose files are now everybody's"
    meanwhile = []

    def watched(*arguments: Any) -> Iterator[str]:
        meanwhile.append(mode(arguments[1]))
        return copy_missing(*arguments)

    copy_missing = backup._copy_missing
    monkeypatch.setattr(backup, "_copy_missing", watched)
    back_up(home, target)
    assert modes(target) == {("folder", "700"), ("file", "600")}
    here_before = tmp_path / "empty"
    here_before.mkdir()
    assert mode(here_before) == "777"
    back_up(home, here_before)
    assert modes(here_before) == {("folder", "700"), ("file", "600")}
    assert meanwhile == ["700", "700"]
    assert mode(target.parent) == "700", "which was made, too"


def test_files_that_the_home_itself_lacks_are_reported(
    database: Database, files: FileStore, tmp_path: Path
) -> None:
    file = files.add([b"bytes"], filename="f", purpose="fine-tune")
    files.path(file.id).unlink()
    made = back_up(tmp_path / "home", tmp_path / "copy")
    assert made.missing == (f"files/{file.sha256[:2]}/{file.sha256}",)
    assert (tmp_path / "copy" / "emojitune.db").exists()


def test_a_backup_that_fails_leaves_nothing_at_its_place(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(backup, "_copy_missing", fail)
    with pytest.raises(KeyboardInterrupt):
        back_up(tmp_path / "home", tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_files_put_into_the_target_meanwhile_stay(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "copy"

    def put(*_: object) -> list[str]:
        target.mkdir()
        (target / "photo.jpg").touch()
        return []

    monkeypatch.setattr(backup, "_copy_missing", put)
    with pytest.raises(ConfigurationError, match="new or empty folder"):
        back_up(tmp_path / "home", target)
    assert (target / "photo.jpg").exists()


def test_an_impossible_target_is_refused(database: Database, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(ConfigurationError, match="outside of its home"):
        back_up(home, home / "copy")
    with pytest.raises(ConfigurationError, match="outside of its home"):
        back_up(home, home)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    with pytest.raises(ConfigurationError, match="new or empty folder"):
        back_up(home, tmp_path / "full")
    assert (tmp_path / "full" / "photo.jpg").exists()
    with pytest.raises(ConfigurationError, match="new or empty folder"):
        back_up(home, tmp_path / "full" / "photo.jpg")
    with pytest.raises(ConfigurationError, match=r"photo.jpg\). .*Name a folder"):
        back_up(home, tmp_path / "full" / "photo.jpg" / "copy")
    with pytest.raises(ConfigurationError, match="nothing to back up"):
        back_up(tmp_path / "nowhere", tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    back_up(home, tmp_path / "empty")
    assert (tmp_path / "empty" / "emojitune.db").exists()
