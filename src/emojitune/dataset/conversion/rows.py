"""The rows of a file, whatever holds them: JSON lines, one JSON list, or CSV.

Each has the number of the line that it begins in. What the rows say is `conversion.py`'s business.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emojitune.dataset.formats import Container, detect_container, other_encoding
from emojitune.dataset.parse import parse_line, read_lines
from emojitune.dataset.rules import Issue, main_issue, preview
from emojitune.dataset.strict_json import (
    BYTE_ORDER_MARK,
    drop_nulls,
    is_encodable,
    iter_list_entries,
    parse_row,
)
from emojitune.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands in the place of a row that cannot be read, and why."""

    reason: str


_SURPLUS = "more columns than the header names"

Rows = list[tuple[int, object]]


def read_rows(path: Path) -> tuple[Container, Rows]:
    """How a file holds its rows, and the rows.

    Raises:
        DatasetError: It is no text, or a list that breaks off: no row is sure then.
        OSError: As of any file.
    """
    with path.open("rb") as file:
        other = other_encoding(file.read(4))
        if other is not None:
            what, advice = other
            raise DatasetError(f"The file is {what}, and must be UTF-8. {advice}", code="not_utf8")
        file.seek(0)
        container = detect_container(file)
    rows = {"lines": _of_lines, "list": _of_list, "csv": _of_csv}[container]
    return container, list(rows(path))


def reason(number: int, raw: bytes) -> str | None:
    """Why a line cannot be trained on; None if it can."""
    issues: list[Issue] = []
    if parse_line(number, raw, issues) is not None:
        return None
    found = main_issue(issues)
    what = found.message.removeprefix(f"Example {number}").lstrip(",: ").removesuffix(".")
    return f"{what}. {found.advice}"


def _of_lines(path: Path) -> Iterator[tuple[int, object]]:
    for number, raw in read_lines(path):
        try:
            text = raw.decode().removeprefix(BYTE_ORDER_MARK if number == 1 else "")
            if text.strip():
                yield number, parse_row(text)
        except (ValueError, RecursionError):
            yield number, Unreadable(reason(number, raw) or "")


def _of_list(path: Path) -> Iterator[tuple[int, object]]:
    try:
        for number, entry in iter_list_entries(path.read_text(encoding="utf-8-sig")):
            yield number, drop_nulls(entry)
    except UnicodeDecodeError as error:
        raise _broken(f"is not UTF-8 at byte {error.start}", "Save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        what = f"breaks off in line {error.lineno}, column {error.colno}: {error.msg}"
        raise _broken(what, "Mend it there.") from None
    except (ValueError, RecursionError) as error:
        raise _broken(f"is not JSON: {error}", "Write it anew.") from None


def _broken(what: str, advice: str) -> DatasetError:
    return DatasetError(f"The file is one JSON list, and {what}. {advice}", code="invalid_json")


def _of_csv(path: Path) -> Iterator[tuple[int, object]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file, restkey=_SURPLUS, strict=True)
        done = 0  # lines of the rows that were read
        try:
            columns = rows.fieldnames or []
            twice = next((name for name in columns if list(columns).count(name) > 1), None)
            if twice is not None:
                raise csv.Error(f"the header names the column {preview(twice)} twice")
            done = rows.line_num
            for row in rows:
                done = rows.line_num
                values = [value for value in row.values() if isinstance(value, str)]
                first = rows.line_num - sum(value.count("\n") for value in values)
                if len(values) < len(row):
                    yield first, Unreadable("has more or fewer columns than the header names.")
                elif not all(map(is_encodable, values)):
                    yield first, Unreadable("is not UTF-8. Save the file as UTF-8.")
                else:
                    yield first, row
        except csv.Error as error:
            message = f"The file is CSV, and breaks off in line {done + 1}: {error}. Correct it."
            raise DatasetError(message, code="invalid_training_file") from None
