import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_every_process_sees_the_requested_day(tmp_path: Path) -> None:
    """Including a process started in another folder. Time stamps of files are real."""
    (tmp_path / "touched").touch()
    requested = (tmp_path / "touched").stat().st_mtime + 86_400 * int(
        os.environ.get("DAYS_AHEAD", "0")
    )
    child = [sys.executable, "-c", "import time; print(time.time())"]
    output = subprocess.run(child, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [time.time(), float(output)] == pytest.approx([requested, requested], abs=60)
