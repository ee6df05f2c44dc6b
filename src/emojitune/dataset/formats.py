"""File formats by their signs: the encoding, the container and the format of the rows.

Only recognizes them; `conversion/` makes chat lines of their rows.
"""

import codecs
import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from emojitune.dataset.parse_tools import CALL_KEYS
from emojitune.dataset.rules import Issue, make_issue

_MAX_HEADER_BYTES = 64 * 1024
_LIST_BEGINS = re.compile(rb"\s*\[\s*(\{|$)")


@dataclass(frozen=True, slots=True)
class OtherEncoding:
    """An encoding that is not UTF-8, or no text at all: its name, and how to get UTF-8."""

    name: str
    advice: str

    def __str__(self) -> str:
        return f"The file is {self.name}, and must be UTF-8. {self.advice}"


_UTF_16 = OtherEncoding("UTF-16", "Save it as UTF-8.")
_BY_MAGIC_BYTES = {
    codecs.BOM_UTF16_LE: _UTF_16,
    codecs.BOM_UTF16_BE: _UTF_16,
    b"\x1f\x8b": OtherEncoding("compressed with gzip", "Unpack it with gunzip first."),
    b"BZh": OtherEncoding("compressed with bzip2", "Unpack it with bunzip2 first."),
    b"\xfd7zX": OtherEncoding("compressed with xz", "Unpack it with unxz first."),
    b"\x28\xb5\x2f\xfd": OtherEncoding("compressed with Zstandard", "Unpack it with unzstd first."),
    b"PK\x03\x04": OtherEncoding("a ZIP archive", "Unpack it first; save a spreadsheet as CSV."),
    b"PAR1": OtherEncoding(
        "a Parquet file", "Write it as JSON lines: `to_json` of `datasets` does."
    ),
}


@dataclass(frozen=True, slots=True)
class Format:
    """A format of rows other than the chat's: its name, and the keys that identify it."""

    name: str
    keys: str

    def __str__(self) -> str:
        return f"{self.name} ({self.keys})"


PROMPT_COMPLETION = Format("prompt and completion", "'prompt' and 'completion'")
SHAREGPT = Format("ShareGPT", "'conversations' of 'from' and 'value'")
ALPACA = Format("Alpaca", "'instruction', 'input' and 'output'")
TOOLS = Format("chat with tools of another form", "'tools' in a string, or arguments in none")
KNOWN_FORMATS = (PROMPT_COMPLETION, SHAREGPT, ALPACA, TOOLS)

# Pairs of a preferred and a rejected reply: they cannot become chat lines.
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
    """The format of a row; None for chat lines, and for unknown formats."""
    messages = row.get("messages")
    if messages is None and PREFERENCE_KEYS & row.keys():
        return None
    if messages is not None:
        if _is_sharegpt(messages):
            return SHAREGPT
        return (
            TOOLS if isinstance(row.get("tools"), str) or _has_object_arguments(messages) else None
        )
    if isinstance(row.get("conversations", row.get("conversation")), list):
        return SHAREGPT
    if "instruction" in row:
        return ALPACA
    return PROMPT_COMPLETION if {"prompt", "completion"} & row.keys() else None


def other_encoding(head: bytes) -> OtherEncoding | None:
    """The encoding of a file by its first bytes; None if it may be UTF-8."""
    for magic_bytes, encoding in _BY_MAGIC_BYTES.items():
        if head.startswith(magic_bytes):
            return encoding
    return _UTF_16 if head[:2].count(0) == 1 else None


def detect_container(file: BinaryIO) -> Container:
    """How a file holds its rows. Reads from the start, and only the first line of large files.

    A JSON list must be the entire file: a line may be a list, too, though no valid example.
    """
    first = file.readline().removeprefix(codecs.BOM_UTF8)
    while first and not first.strip():
        first = file.readline()
    if _LIST_BEGINS.match(first) and not (_is_json(first) and any(map(bytes.strip, file))):
        return "list"
    return "csv" if len(first) <= _MAX_HEADER_BYTES and _is_header(first) else "lines"


def not_json_lines(path: Path, name: str) -> Issue | None:
    """The issue of a file that is not JSON lines; None if it is. Messages call it `name`."""
    with path.open("rb") as file:
        encoding = other_encoding(file.read(4))
        if encoding is not None:
            message = f"The {name} is {encoding.name}, and must be JSON lines in UTF-8."
            return make_issue(None, "not_utf8", message, encoding.advice)
        file.seek(0)
        container = detect_container(file)
    if container == "lines":
        return None
    actual = "one JSON list" if container == "list" else "CSV"
    message = f"The {name} is {actual}, and must be JSON lines, one object a line."
    return make_issue(None, "other_format", message)


def _is_sharegpt(messages: Any) -> bool:
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "from" in first and "role" not in first


def _has_object_arguments(messages: Any) -> bool:
    """Whether arguments of tool calls are objects; the API has them as strings."""
    entries = messages if isinstance(messages, list) else []
    return any(
        isinstance(function.get("arguments"), dict)
        for entry in entries
        if isinstance(entry, dict) and CALL_KEYS & entry.keys()
        for function in called_functions(entry)
    )


def listed_calls(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries of a message's `tool_calls` that are objects."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def called_functions(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions of a message's calls, current and deprecated, that are objects."""
    functions = [call.get("function") for call in listed_calls(message)]
    return [call for call in (*functions, message.get("function_call")) if isinstance(call, dict)]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_header(line: bytes) -> bool:
    """Whether a line is a CSV header that names the keys of a known format."""
    try:
        columns = next(csv.reader([line.decode()]), [])
    except (csv.Error, UnicodeDecodeError):
        return False
    return len(columns) > 1 and detect_format(dict.fromkeys(columns, "")) is not None
