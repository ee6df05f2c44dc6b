"""The check of a training file at upload: its first line must be a JSON object.

The job checks every line, and reports all issues at once (`validation.py`).
"""

import codecs
import json
from typing import BinaryIO, NoReturn

from emojitune.dataset.formats import detect_container, other_encoding
from emojitune.dataset.rules import CONVERT_ADVICE
from emojitune.errors import DatasetError

_MAX_LINE_BYTES = 16 * 1024 * 1024  # a longer line is left to the job


def check_first_line(file: BinaryIO) -> None:
    """Check the first line that is not blank; the rest stays unread.

    Raises:
        DatasetError: The line is not a JSON object: the file has another format.
    """
    number, line = 1, file.readline(_MAX_LINE_BYTES + 1).removeprefix(codecs.BOM_UTF8)
    encoding = other_encoding(line)
    if encoding is not None:
        _refuse(str(encoding))
    while line and not line.strip():
        number, line = number + 1, file.readline(_MAX_LINE_BYTES + 1)
    if len(line) <= _MAX_LINE_BYTES and not _is_object(line):
        start = line.decode("utf-8", "replace").strip()[:3]
        file.seek(0)
        advice = f" {CONVERT_ADVICE}" if detect_container(file) != "lines" else ""
        _refuse(
            f'Line {number} is not a dictionary (HINT: line starts with: "{start}...").{advice}'
        )


def _refuse(reason: str) -> NoReturn:
    rule = "Expected file to have JSONL format, where every line is a JSON dictionary."
    raise DatasetError(f"{rule} {reason}", param="file")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deeply
        return False
