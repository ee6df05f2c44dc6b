import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def test_every_process_sees_the_requested_day(tmp_path: Path) -> None:
    """One that was started in another folder too. The disk keeps the real time."""
    (tmp_path / "touched").touch()
    asked = (tmp_path / "touched").stat().st_mtime + 86_400 * int(os.environ.get("DAYS_AHEAD", "0"))
    child = [sys.executable, "-c", "import time; print(time.time())"]
    told = subprocess.run(child, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [time.time(), float(told)] == pytest.approx([asked, asked], abs=60)
