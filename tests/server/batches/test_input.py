import json
from pathlib import Path

import pytest

from emojitune.server.batches.input import validate_input
from emojitune.server.http import json_bodies

CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_file_without_requests_is_empty(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "batch.jsonl"
    file.write_bytes(content)
    [error] = validate_input(file, CHAT).errors
    assert error.code == "empty_file"


def test_large_lines_are_parsed_with_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "in.jsonl"
    for number, size in enumerate((10, 20_000)):
        body = {"model": "m", "messages": [{"role": "user", "content": "x" * size}]}
        line = {"custom_id": str(number), "method": "POST", "url": CHAT, "body": body}
        with file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    pauses: list[float] = []
    monkeypatch.setattr(json_bodies.time, "sleep", pauses.append)
    assert validate_input(file, CHAT).total == 2
    assert len(pauses) == 1
