"""What a file is that is no chat lines: its bytes, its container, the format of its rows.

Recognizes only; `conversion.py` makes chat lines of what is recognized here.
"""

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from emojitune.dataset.parse_tools import CALL_KEYS
from emojitune.dataset.rules import CONVERT_ADVICE

_LONGEST_HEADER = 64 * 1024
_LIST_BEGINS = re.compile(rb"\s*\[\s*(\{|$)")
_MARK = b"\xef\xbb\xbf"
_UTF_16 = ("UTF-16", "Save it as UTF-8.")
# By their first bytes: what they are, and what to do.
_NO_TEXT = {
    b"\xff\xfe": _UTF_16,
    b"\xfe\xff": _UTF_16,
    b"\x1f\x8b": ("compressed with gzip", "Unpack it with gunzip first."),
    b"BZh": ("compressed with bzip2", "Unpack it with bunzip2 first."),
    b"\xfd7zX": ("compressed with xz", "Unpack it with unxz first."),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "Unpack it with unzstd first."),
    b"PK\x03\x04": ("a ZIP archive", "Unpack it first; save a spreadsheet as CSV."),
    b"PAR1": ("a Parquet file", "Write it as JSON lines: `to_json` of `datasets` does."),
}


@dataclass(frozen=True, slots=True)
class Format:
    """A format of rows that is not the chat's: its name, and what it is known by."""

    name: str
    sign: str

    def __str__(self) -> str:
        return f"{self.name} ({self.sign})"


PROMPT_COMPLETION = Format("prompt and completion", "'prompt' and 'completion'")
SHAREGPT = Format("ShareGPT", "'conversations' of 'from' and 'value'")
ALPACA = Format("Alpaca", "'instruction', 'input' and 'output'")
TOOLS = Format("chat with tools of another form", "'tools' in a string, or arguments in none")
KNOWN_FORMATS = (PROMPT_COMPLETION, SHAREGPT, ALPACA, TOOLS)

# Pairs of replies, the better one and the worse: no chat line is made of them.
PREFERENCE_KEYS = {
    "preferred_output",
    "non_preferred_output",
    "preferred_completion",
    "non_preferred_completion",
    "chosen",
    "rejected",
}

Container = Literal["lines", "list", "csv"]


def detect_format(row: Mapping[str, Any]) -> Format | None:
    """The other format that a row is in; None for chat lines, and for what nobody knows."""
    messages = row.get("messages")
    if messages is None and PREFERENCE_KEYS & row.keys():
        return None
    if messages is not None:
        if _are_turns(messages):
            return SHAREGPT
        return (
            TOOLS if isinstance(row.get("tools"), str) or _have_open_arguments(messages) else None
        )
    if isinstance(row.get("conversations", row.get("conversation")), list):
        return SHAREGPT
    if "instruction" in row:
        return ALPACA
    return PROMPT_COMPLETION if {"prompt", "completion"} & row.keys() else None


def other_encoding(head: bytes) -> tuple[str, str] | None:
    """What a file is that is no UTF-8 by its first bytes, and what to do; else None."""
    known = next((_NO_TEXT[magic] for magic in _NO_TEXT if head.startswith(magic)), None)
    return known or (_UTF_16 if head[:2].count(0) == 1 else None)


def detect_container(file: BinaryIO) -> Container:
    """How a file holds its rows. Reads it from its start, and of large files only the first line.

    A JSON list is one only where it is all there is: lines may be lists, too, if useless ones.
    """
    first = file.readline().removeprefix(_MARK)
    while first and not first.strip():
        first = file.readline()
    if _LIST_BEGINS.match(first) and not (_is_json(first) and any(map(bytes.strip, file))):
        return "list"
    return "csv" if len(first) <= _LONGEST_HEADER and _is_header(first) else "lines"


def not_json_lines(path: Path) -> tuple[str, str, str] | None:
    """Why a whole file is no JSON lines: a code, what it is, and what to do; else None."""
    with path.open("rb") as file:
        other = other_encoding(file.read(4))
        if other is not None:
            what, advice = other
            return "not_utf8", f"is {what}, and must be JSON lines in UTF-8", advice
        file.seek(0)
        container = detect_container(file)
    if container == "lines":
        return None
    what = "one JSON list" if container == "list" else "CSV"
    return "other_format", f"is {what}, and must be JSON lines, one object a line", CONVERT_ADVICE


def _are_turns(messages: Any) -> bool:
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "from" in first and "role" not in first


def _have_open_arguments(messages: Any) -> bool:
    """Whether arguments of calls are objects, which the API writes into strings."""
    entries = messages if isinstance(messages, list) else []
    return any(
        isinstance(function.get("arguments"), dict)
        for entry in entries
        if isinstance(entry, dict) and CALL_KEYS & entry.keys()
        for function in called_functions(entry)
    )


def listed_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a message's `tool_calls`, as far as they are objects."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def called_functions(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions of a message's calls, in either form of the API, as far as they are objects."""
    found = [call.get("function") for call in listed_calls(message)]
    return [one for one in (*found, message.get("function_call")) if isinstance(one, dict)]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_header(line: bytes) -> bool:
    """Whether a line names the columns of a format."""
    try:
        columns = next(csv.reader([line.decode()]), [])
    except (csv.Error, UnicodeDecodeError):
        return False
    return len(columns) > 1 and detect_format(dict.fromkeys(columns, "")) is not None
