"""The first load of a model from elsewhere, in a process within limits of time and memory.

The libraries that read its files may run without end, take all memory or end their process. Only
what has loaded there is loaded by others. The verdict holds as long as the files are unchanged.
"""

import hashlib
import json
import subprocess
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from emojitune.errors import ModelError
from emojitune.models import available_memory
from emojitune.models.untrusted import limited_process, plain
from emojitune.models.untrusted.limits import check_files, refusal, weight_bytes

_LIBRARIES = ("safetensors", "tokenizers", "torch", "transformers")
_REFUSED_SECONDS = 600  # after which it is tried again: the machine may have been too busy


def admit(folder: Path, verdicts: Path) -> None:
    """Check that a base model's folder loads within limits.

    Args:
        verdicts: The folder of the verdicts on earlier ones.

    Raises:
        ModelError: It does not, or is no complete model.
    """
    check_files(folder)
    if plain.is_plain_model(folder):
        return
    file = verdicts / f"{_fingerprint(folder)}.json"
    verdict = _remembered(file)
    if verdict is None:
        verdict = _try(folder)
        with suppress(OSError):  # on a full or read-only disk it is tried again
            verdicts.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(verdict), encoding="utf-8")
    if verdict:
        raise ModelError(verdict["message"], code=verdict["code"], param="model")


def _remembered(file: Path) -> dict[str, Any] | None:
    """The verdict in a file: empty for a model that loads. None where it has to be tried."""
    try:
        verdict: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        expired = bool(verdict) and time.time() - file.stat().st_mtime > _REFUSED_SECONDS
        return None if expired else verdict
    except (OSError, ValueError):
        return None


def _fingerprint(folder: Path) -> str:
    """An identity of the folder's files, as far as the system notes changes, and of its readers."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    states = [(str(path), one.st_size, one.st_mtime_ns, one.st_ino) for path, one in files]
    libraries = [version(library) for library in _LIBRARIES]
    return hashlib.sha256(repr((states, libraries)).encode()).hexdigest()


def _try(folder: Path) -> dict[str, Any]:
    """The verdict of a process that loads the model."""
    size = weight_bytes(folder)
    available_memory.check(size, f"the base model in {folder}")
    seconds, memory = 60 + size // (50 * 10**6), 2 * 2**30 + 3 * size
    process = subprocess.run(
        limited_process.command(
            "emojitune.models.untrusted.trial_main", str(folder), str(seconds), str(memory)
        ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=limited_process.environment(),
        start_new_session=True,  # Ctrl-C in the terminal is the server's to handle
    )
    try:
        verdict: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        return verdict
    except (ValueError, IndexError):
        found = limited_process.why_ended(process.returncode, seconds, memory)
        error = refusal(folder, f"when it is loaded, {found}")
        return {"message": error.message, "code": error.code}
