"""The one thing that is asked of a training file when it arrives: that it begins as JSON lines.

Every line is checked by the job, which reports all issues at once (`validation.py`).
"""

import json
from typing import BinaryIO, NoReturn

from emojitune.dataset.formats import detect_container, other_encoding
from emojitune.dataset.rules import CONVERT_ADVICE
from emojitune.errors import DatasetError

_LONGEST_LINE = 16 * 1024 * 1024  # a longer one is left to the job
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def check_first_line(file: BinaryIO) -> None:
    """Look at the first line that is not blank, and leave the rest unread.

    Raises:
        DatasetError: It is no JSON object, so the file is of another kind.
    """
    number, line = 1, file.readline(_LONGEST_LINE + 1).removeprefix(_BYTE_ORDER_MARK)
    other = other_encoding(line)
    if other is not None:
        what, advice = other
        _refuse(f"The file is {what}, and must be UTF-8. {advice}")
    while line and not line.strip():
        number, line = number + 1, file.readline(_LONGEST_LINE + 1)
    if len(line) <= _LONGEST_LINE and not _is_dictionary(line):
        start = line.decode("utf-8", "replace").strip()[:3]
        file.seek(0)
        advice = f" {CONVERT_ADVICE}" if detect_container(file) != "lines" else ""
        _refuse(
            f'Line {number} is not a dictionary (HINT: line starts with: "{start}...").{advice}'
        )


def _refuse(reason: str) -> NoReturn:
    rule = "Expected file to have JSONL format, where every line is a JSON dictionary."
    raise DatasetError(f"{rule} {reason}", param="file")


def _is_dictionary(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):  # no JSON, no Unicode, or nested without end
        return False
