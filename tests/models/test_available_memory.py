from pathlib import Path

import pytest

from emojitune.models import available_memory


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available_memory, "_CGROUP", tmp_path)
    unbounded = available_memory.available_bytes()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert unbounded is None or available_memory.available_bytes() is not None
    (tmp_path / "memory.max").write_text("10000\n")
    assert available_memory.available_bytes() == 5000
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    assert available_memory.available_bytes() == 5300
