"""`emojitune data`: check, stats and split."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emojitune.cli.data.standard_input import beside, title
from emojitune.cli.new_file import require_new, write_new
from emojitune.cli.render import Screen
from emojitune.dataset.repair import mend
from emojitune.dataset.split import split_places
from emojitune.dataset.statistics import describe
from emojitune.dataset.validation import DatasetReport, check_file, raw_lines
from emojitune.errors import DatasetError
from emojitune.evaluation.report import draw_frequencies


def check_usable(
    path: Path,
    screen: Screen,
    *,
    minimum: int,
    name: str,
    training: DatasetReport | None = None,
) -> DatasetReport:
    """Show what is wrong with a file, and refuse to go on with one that has errors."""
    report = check_file(path, minimum_examples=minimum, name=name, training=training)
    screen.dataset(report)
    if not report.ok:
        raise DatasetError(
            f"The {name} {title(path)} cannot be used: {len(report.errors)} error(s), listed "
            "above. Mend them and run this again.",
            code=report.errors[0].code,
        )
    return report


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What was asked of `data check`."""

    valid: Path | None
    strict: bool
    fix: bool


def check(file: Path, options: CheckOptions, screen: Screen) -> dict[str, Any]:
    """What `data check` shows and returns; --json carries the issues even of an unusable file.

    With --fix the cleaned copy decides whether the file passes.
    """
    reports = [check_file(file)]
    screen.dataset(reports[0], notes=True)
    result = _findings(reports[0])
    if options.fix and reports[0].has_lines:
        reports = [_fix(reports[0], result, screen)]
    if options.valid is not None:
        reports.append(_check_validation(options.valid, reports[0], result, screen))
    screen.result(result)
    for report in reports:
        _refuse(report, strict=options.strict)
    return result


def _findings(report: DatasetReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "examples": len(report.examples),
        "issues": [asdict(issue) for issue in report.issues],
    }


def _fix(report: DatasetReport, result: dict[str, Any], screen: Screen) -> DatasetReport:
    """Write the cleaned copy and the list of changes; returns what is left to say of the copy."""
    mended = mend(report)
    if not mended.lines:
        screen.say("--fix wrote nothing: no line of the file can be mended.")
        return report
    copy, listed = beside(report.path, ".fixed.jsonl"), beside(report.path, ".fixed.txt")
    for path in (copy, listed):
        require_new(path)  # before either is written
    write_new(copy, report.path, mended.lines)
    listing = (f"line {one.line}: {one.code}: {one.what}" for one in mended.changes)
    write_new(listed, report.path, listing)
    screen.changes(mended.changes)
    screen.say(f"{listed}: {len(mended.changes)} change(s)")
    fixed = check_file(copy)
    screen.dataset(fixed, notes=True)
    changes = [asdict(change) for change in mended.changes]
    result["fixed"] = {"path": str(copy), "changes": changes, **_findings(fixed)}
    return fixed


def _check_validation(
    path: Path, training: DatasetReport, result: dict[str, Any], screen: Screen
) -> DatasetReport:
    report = check_file(path, minimum_examples=1, name="validation file", training=training)
    screen.dataset(report)
    result["validation"] = _findings(report)
    result["leaked"] = sum(issue.code == "leakage" for issue in report.issues)
    return report


def _refuse(report: DatasetReport, *, strict: bool) -> None:
    name = title(report.path)
    if not report.ok:
        message = f"{name} cannot be used for training: {len(report.errors)} error(s). Mend them."
        raise DatasetError(message, code=report.errors[0].code)
    if strict and report.warnings:
        counted = f"{name} has {len(report.warnings)} warning(s), and --strict allows none."
        message = f"{counted} Mend them, or leave --strict out."
        raise DatasetError(message, code=report.warnings[0].code)


def stats(file: Path, plot: Path | None, screen: Screen) -> dict[str, Any]:
    """What `data stats` shows, draws and returns."""
    report = check_file(file, minimum_examples=1)
    if not report.ok:
        screen.dataset(report)
        raise DatasetError(
            f"{title(file)} has errors; mend them first.", code=report.errors[0].code
        )
    numbers = describe(report.examples)
    screen.statistics(numbers)
    if plot is not None:
        draw_frequencies(numbers.frequencies, plot)
        screen.say(str(plot))
    return {**asdict(numbers), "frequencies": dict(numbers.frequencies)}


def split(file: Path, share: float, seed: int, screen: Screen) -> dict[str, Any]:
    """Cut `file` and write both parts beside it, line by line; nothing is overwritten."""
    report = check_usable(file, screen, minimum=2, name="file")
    training, validation = split_places(report.examples, share=share, seed=seed)
    raw = dict(raw_lines(file))
    result = {}
    paths = {part: beside(file, f".{part}.jsonl") for part in ("train", "valid")}
    for path in paths.values():
        require_new(path)  # before either is written
    for (part, path), places in zip(paths.items(), (training, validation), strict=True):
        write_new(path, file, (raw[report.lines[place]].decode("utf-8-sig") for place in places))
        screen.say(f"{path}: {len(places)} example(s)")
        result[part] = {"path": str(path), "examples": len(places)}
    return result
