"""The rows of a file in any container: JSON lines, one JSON list, or CSV.

Each row has the number of the line that it begins in. `convert.py` interprets the rows.
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
class UnreadableRow:
    """Stands for a row that cannot be read, with the reason."""

    reason: str


_SURPLUS_KEY = "more columns than the header names"

Rows = list[tuple[int, object]]


def read_rows(path: Path) -> tuple[Container, Rows]:
    """The container of a file, and its rows.

    Raises:
        DatasetError: The file is not text, or breaks off, so that no row is certain.
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        encoding = other_encoding(file.read(4))
        if encoding is not None:
            raise DatasetError(str(encoding), code="not_utf8")
        file.seek(0)
        container = detect_container(file)
    read = {"lines": _read_json_lines, "list": _read_list, "csv": _read_csv}[container]
    return container, list(read(path))


def rejection_reason(number: int, raw: bytes) -> str | None:
    """Why a line cannot be trained on; None if it can."""
    issues: list[Issue] = []
    if parse_line(number, raw, issues) is not None:
        return None
    issue = main_issue(issues)
    return f"{issue.problem}. {issue.advice}"


def _read_json_lines(path: Path) -> Iterator[tuple[int, object]]:
    for number, raw in read_lines(path):
        try:
            text = raw.decode().removeprefix(BYTE_ORDER_MARK if number == 1 else "")
            if text.strip():
                yield number, parse_row(text)
        except (ValueError, RecursionError):
            yield number, UnreadableRow(rejection_reason(number, raw) or "")


def _read_list(path: Path) -> Iterator[tuple[int, object]]:
    try:
        for number, entry in iter_list_entries(path.read_text(encoding="utf-8-sig")):
            yield number, drop_nulls(entry)
    except UnicodeDecodeError as error:
        raise _broken_list(
            f"is not UTF-8 at byte {error.start}", "Save the file as UTF-8."
        ) from None
    except json.JSONDecodeError as error:
        problem = f"breaks off in line {error.lineno}, column {error.colno}: {error.msg}"
        raise _broken_list(problem, "Correct it there.") from None
    except (ValueError, RecursionError) as error:
        raise _broken_list(f"is not JSON: {error}", "Write it again.") from None


def _broken_list(problem: str, advice: str) -> DatasetError:
    return DatasetError(f"The file is one JSON list, and {problem}. {advice}", code="invalid_json")


def _read_csv(path: Path) -> Iterator[tuple[int, object]]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file, restkey=_SURPLUS_KEY, strict=True)
        last_line = 0  # of the rows read so far
        try:
            columns = rows.fieldnames or []
            repeated = next((name for name in columns if list(columns).count(name) > 1), None)
            if repeated is not None:
                raise csv.Error(f"the header names the column {preview(repeated)} twice")
            last_line = rows.line_num
            for row in rows:
                last_line = rows.line_num
                values = [value for value in row.values() if isinstance(value, str)]
                first = rows.line_num - sum(value.count("\n") for value in values)
                if len(values) < len(row):
                    yield first, UnreadableRow("has more or fewer columns than the header names.")
                elif not all(map(is_encodable, values)):
                    yield first, UnreadableRow("is not UTF-8. Save the file as UTF-8.")
                else:
                    yield first, row
        except csv.Error as error:
            message = (
                f"The file is CSV, and breaks off in line {last_line + 1}: {error}. Correct it."
            )
            raise DatasetError(message, code="invalid_training_file") from None
