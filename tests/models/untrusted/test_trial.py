import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from emojitune.errors import ModelError
from emojitune.models import available_memory
from emojitune.models.catalog import find_base
from emojitune.models.download import fetch_checked
from emojitune.models.untrusted import trial
from emojitune.settings import Settings


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "base"
    shutil.copytree(tiny_base, copy)
    return copy


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache=tmp_path / "cache")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def with_a_charsmap_that_aborts(folder: Path) -> None:
    charsmap = {"type": "Precompiled", "precompiled_charsmap": "/////w=="}
    change(folder / "tokenizer.json", normalizer=charsmap)


def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", None)


def test_a_plain_model_needs_no_trial(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_processes(monkeypatch)
    assert fetch_checked(find_base(str(folder)), settings) == folder
    assert not settings.cache.exists()


def test_a_file_that_ends_the_process_that_reads_it_is_refused_until_it_changes(
    folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_charsmap_that_aborts(folder)
    base = find_base(str(folder))
    with pytest.raises(ModelError, match="when it is loaded, it fails") as error:
        fetch_checked(base, settings)
    assert error.value.code == "model_refused"
    with monkeypatch.context() as patch:
        no_processes(patch)
        with pytest.raises(ModelError, match="when it is loaded, it fails"):
            fetch_checked(base, settings)

    change(folder / "tokenizer.json", normalizer={"type": "Nmt"})
    assert fetch_checked(base, settings) == folder
    no_processes(monkeypatch)
    assert fetch_checked(base, settings) == folder


def test_a_tokenizer_that_multiplies_a_text_is_refused(folder: Path, settings: Settings) -> None:
    # A letter that is in neither the chat template nor the prompt of the trial.
    doubling = {"type": "Replace", "pattern": {"String": "q"}, "content": "qq"}
    bomb = {"type": "Sequence", "normalizers": [doubling] * 22}
    change(folder / "tokenizer.json", normalizer=bomb)
    with pytest.raises(ModelError, match="limits of time and memory") as error:
        fetch_checked(find_base(str(folder)), settings)
    assert error.value.code == "model_refused"


def test_a_refused_model_is_tried_again_later(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_a_charsmap_that_aborts(folder)
    verdicts = iter([{"message": "Too slow.", "code": "model_refused"}, {}])
    monkeypatch.setattr(trial, "_try", lambda _: next(verdicts))
    with pytest.raises(ModelError, match="Too slow"):
        trial.admit(folder, tmp_path / "trials")
    [verdict] = (tmp_path / "trials").iterdir()
    os.utime(verdict, (0, 0))
    trial.admit(folder, tmp_path / "trials")


def test_weights_that_do_not_fit_into_memory_are_not_tried(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_processes(monkeypatch)
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 1000)
    with_a_charsmap_that_aborts(folder)
    with pytest.raises(ModelError, match=r"must fit into memory.*0\.0 GB are available") as error:
        trial.admit(folder, tmp_path / "trials")
    assert error.value.code == "out_of_memory"
