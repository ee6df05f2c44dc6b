"""`emojitune doctor` and `emojitune backup`, as a person types them."""

import json
import sys
from pathlib import Path

import pytest

from emojitune.cli import main as command_line
from emojitune.settings import Settings
from emojitune.store.stores import open_stores


def emojitune(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["emojitune", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_the_doctor_reports_and_repairs_with_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMOJITUNE_CACHE", str(tmp_path / "cache"))
    home = tmp_path / "home"
    stores = open_stores(Settings(home=home), "default")
    file = stores.files.add([b"content"], filename="train.jsonl", purpose="fine-tune")
    (home / "files" / "incoming-0123").write_text("half")

    code, out, _ = emojitune(monkeypatch, capsys, "doctor", "--home", home)
    assert code == 1
    assert "incoming-0123: an interrupted write left it" in out
    assert "--repair would: delete it" in out
    code, out, _ = emojitune(monkeypatch, capsys, "doctor", "--home", home, "--repair", "--json")
    assert code == 0
    [finding] = json.loads(out)["findings"]
    assert finding["repaired"] is True
    assert emojitune(monkeypatch, capsys, "doctor", "--home", home)[0] == 0

    stores.files.path(file.id).unlink()
    code, out, _ = emojitune(monkeypatch, capsys, "doctor", "--home", home, "--repair", "--json")
    assert code == 1, "only a person can help"
    [finding] = json.loads(out)["findings"]
    assert file.id in finding["found"]
    assert (finding["repair"], finding["repaired"]) == (None, False)


def test_a_backup_prints_how_to_restore_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, target = tmp_path / "home", tmp_path / "copy"
    stores = open_stores(Settings(home=home), "default")
    stores.files.add([b"content"], filename="train.jsonl", purpose="fine-tune")
    code, out, _ = emojitune(monkeypatch, capsys, "backup", target, "--home", home)
    assert code == 0
    assert f"emojitune serve --home {target}" in out
    assert "permissions" not in out
    code, _, err = emojitune(monkeypatch, capsys, "backup", target, "--home", home)
    assert code == 1
    assert "new or empty folder" in err
    code, out, _ = emojitune(
        monkeypatch, capsys, "backup", tmp_path / "b", "--home", home, "--json"
    )
    assert json.loads(out) == {
        "target": str(tmp_path / "b"), "files": 1, "adapters": 0, "missing": []
    }  # fmt: skip
    # As on a memory stick: whatever is asked for, all may read it.
    monkeypatch.setattr("emojitune.cli.upkeep.is_open_to_others", lambda _: True)
    code, out, _ = emojitune(monkeypatch, capsys, "backup", tmp_path / "c", "--home", home)
    assert code == 0
    assert "has no permissions" in out
