"""The check of a training file at upload: its first line must be a JSON object.

The job checks every line, and reports all issues at once (`validation.py`).
"""

import codecs
import io
import json
from typing import BinaryIO, NoReturn

from emojitune.dataset.formats import detect_container, other_encoding
from emojitune.dataset.rules import CONVERT_ADVICE
from emojitune.errors import DatasetError

_READ_BYTES = 1024 * 1024  # of a longer line, the rest is left to the job


def check_first_line(file: BinaryIO) -> None:
    """Check the first line that is not blank; the rest stays unread.

    Raises:
        DatasetError: The line is not a JSON object: the file has another format.
    """
    start = file.read(_READ_BYTES)
    encoding = other_encoding(start)
    if encoding is not None:
        _refuse(str(encoding))
    lines = enumerate(io.BytesIO(start.removeprefix(codecs.BOM_UTF8)), 1)
    number, line = next(((number, line) for number, line in lines if line.strip()), (1, b""))
    complete = line.endswith(b"\n") or len(start) < _READ_BYTES
    if not (_is_object(line) if complete else line.lstrip().startswith(b"{") or not line):
        shown = line.decode("utf-8", "replace").strip()[:3]
        container = detect_container(io.BytesIO(start))
        advice = f" {CONVERT_ADVICE}" if container != "lines" else ""
        _refuse(
            f'Line {number} is not a dictionary (HINT: line starts with: "{shown}...").{advice}'
        )


def _refuse(reason: str) -> NoReturn:
    rule = "Expected file to have JSONL format, where every line is a JSON dictionary."
    raise DatasetError(f"{rule} {reason}", param="file")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested too deeply
        return False
