"""A full disk: nothing is lost, and the error message says what to do."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from emojitune.disk import atomic_folder, disk_errors, replace_folder
from emojitune.errors import StorageError

# Real errors of the system: a process with a limit on the size of files.
UPLOAD = """
import pathlib, sys
from emojitune.errors import StorageError
from emojitune.store.database import open_database
from emojitune.store.files import FileStore
home = pathlib.Path(sys.argv[1])
database = open_database(home)
files = FileStore(database, "default", home / "files")
small = files.add([b"small"], filename="small", purpose="fine-tune")
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    files.add([bytes(1_000_000)], filename="large", purpose="fine-tune")
except StorageError as error:
    print(error.code)
assert [file.filename for file in files.list().items] == ["small"]
assert files.path(small.id).read_bytes() == b"small"
assert len([path for path in (home / "files").rglob("*") if path.is_file()]) == 1
files.add([b"next"], filename="next", purpose="fine-tune")
"""
ADAPTER = """
import pathlib, resource, sys, torch
from emojitune.errors import StorageError
from emojitune.models import adapter
folder, info = pathlib.Path(sys.argv[1]), adapter.AdapterInfo("base", 4, 8.0)
adapter.write(folder, {"layer.lora_A": torch.ones(4, 4)}, info)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    adapter.write(folder, {"layer.lora_A": torch.zeros(400, 400)}, info)
except StorageError as error:
    print(error.code)
assert adapter.read(folder)[1]["layer.lora_A"].sum() == 16, "the previous one is unharmed"
assert [path.name for path in folder.parent.iterdir()] == [folder.name], "a partial file is left"
"""


@pytest.mark.parametrize("script", [UPLOAD, ADAPTER])
def test_a_failed_write_loses_nothing(tmp_path: Path, script: str) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    command = [sys.executable, "-c", script, str(tmp_path / "here")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.stdout, ran.returncode) == ("disk_full\n", 0), ran.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk_full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (OSError(errno.EROFS, "Read-only file system"), "disk_read_only"),
        (PermissionError(errno.EACCES, "Permission denied"), "disk_read_only"),
    ],
)
def test_errors_of_the_system_are_distinguished(
    tmp_path: Path, error: Exception, code: str
) -> None:
    with pytest.raises(StorageError, match="here") as caught, disk_errors(tmp_path / "here"):
        raise error
    assert caught.value.code == code
    assert caught.value.__cause__ is error


def test_other_errors_are_not_translated(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        (tmp_path / "nothing").read_bytes()


def test_a_folder_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    def write(name: str, error: OSError | None) -> None:
        with atomic_folder(tmp_path / "target") as staging:
            (staging / name).write_bytes(bytes(1000))
            if error is not None:
                raise error

    write("old", None)
    with pytest.raises(StorageError):
        write("new", OSError(errno.ENOSPC, "No space left on device"))
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


def test_a_folder_replaces_another(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / name).write_text(name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert os.listdir(tmp_path / "old" / "deep") == ["new"]
