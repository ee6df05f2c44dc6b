from pathlib import Path

import pytest

from emojitune.server.batches.input import validate_input


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_a_file_without_requests_is_empty(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "batch.jsonl"
    file.write_bytes(content)
    [error] = validate_input(file, "/v1/chat/completions").errors
    assert error.code == "empty_file"
