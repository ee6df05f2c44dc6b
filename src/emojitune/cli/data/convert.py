"""`emojitune data convert`: a file in another format to chat lines, with a report on every row."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emojitune.cli.invocation import command
from emojitune.cli.paths import display_name, output_path, write_new
from emojitune.cli.render import Screen
from emojitune.dataset.conversion.convert import ConversionResult, convert
from emojitune.dataset.formats import KNOWN_FORMATS
from emojitune.errors import DatasetError, InvalidRequestError, NotFoundError

_MAX_SHOWN = 20


def convert_file(file: Path, output: Path | None, screen: Screen) -> None:
    """Write the chat lines next to the file or to `output`, and report on every row; --json
    includes the report even if no row could be converted."""
    if output == Path("-"):
        raise InvalidRequestError("--output must name a file, not -.")
    try:
        converted = convert(file)
    except OSError as error:
        raise NotFoundError(
            f"{display_name(file)} cannot be read ({error.strerror}). Check the path."
        ) from error
    name, target = display_name(file), output or output_path(file, ".chat.jsonl")
    if converted.lines and not converted.is_foreign:
        raise InvalidRequestError(
            f"{name} is in the chat format already. "
            f"To see what is wrong with it: {command('data', 'check', name)}"
        )
    _show_report(converted, name, screen)
    if converted.lines:
        write_new(target, file, converted.lines)
        counts = f"{len(converted.lines)} chat line(s), {len(converted.left_out)} row(s) left out"
        screen.say(f"{target}: {counts}")
        screen.say(f"Check them:  {command('data', 'check', target)}")
    screen.result(_report(converted, target))
    if not converted.lines:
        formats = ", ".join(str(format) for format in KNOWN_FORMATS)
        raise DatasetError(
            f"{name} has no row that can be converted to a chat line. Known formats are "
            f"{formats}: convert its rows to one of them.",
            code="other_format",
        )


def _report(converted: ConversionResult, target: Path) -> dict[str, Any]:
    return {
        "path": str(target) if converted.lines else None,
        "formats": converted.formats,
        "converted": len(converted.lines),
        "left_out": [asdict(row) for row in converted.left_out],
        "not_carried_over": converted.dropped,
    }


def _show_report(converted: ConversionResult, name: str, screen: Screen) -> None:
    formats = ", ".join(f"{rows} {format}" for format, rows in converted.formats.items())
    screen.say(
        f"{name}: {len(converted.lines) + len(converted.left_out)} row(s): {formats or 'none'}"
    )
    for what, rows in converted.dropped.items():
        screen.say(f"not carried over: {what} ({rows} row(s))", style="cyan")
    for row in converted.left_out[:_MAX_SHOWN]:
        screen.say(f"left out, line {row.line}: {row.reason}", style="yellow")
    others = converted.left_out[_MAX_SHOWN:]
    if others:
        screen.say(f"... and {len(others)} more left out; --json lists all", style="yellow")
