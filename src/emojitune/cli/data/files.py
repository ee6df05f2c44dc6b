"""`emojitune data`: check, stats and split."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emojitune.cli.paths import display_name, output_path, require_new, write_new
from emojitune.cli.render import Screen
from emojitune.dataset.parse import read_lines
from emojitune.dataset.repair import repair
from emojitune.dataset.split import split_indices
from emojitune.dataset.statistics import describe
from emojitune.dataset.validation import DatasetReport, check_file
from emojitune.errors import DatasetError
from emojitune.models.catalog import DEFAULT_CONTEXT_LENGTH

# Warns of examples that the default base model would not read to the end.
_check_file = partial(check_file, context_tokens=DEFAULT_CONTEXT_LENGTH)


def check_usable(
    path: Path,
    screen: Screen,
    *,
    minimum: int,
    name: str,
    training: DatasetReport | None = None,
) -> DatasetReport:
    """Show the issues of a file.

    Raises:
        DatasetError: The file has errors.
    """
    report = _check_file(path, minimum_examples=minimum, name=name, training=training)
    screen.dataset(report)
    if not report.ok:
        raise DatasetError(
            f"The {name} {display_name(path)} cannot be used: {len(report.errors)} error(s), "
            "listed above. Fix them and run this again.",
            code=report.errors[0].code,
        )
    return report


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of `data check`."""

    valid: Path | None
    strict: bool
    fix: bool


def check(file: Path, options: CheckOptions, screen: Screen) -> dict[str, Any]:
    """Show the issues of a file; --json includes them even if the file is unusable.

    With --fix the repaired copy decides whether the file passes.
    """
    reports = [_check_file(file)]
    screen.dataset(reports[0], notes=True)
    result = _issues_json(reports[0])
    if options.fix and reports[0].has_lines:
        reports = [_fix(reports[0], result, screen)]
    if options.valid is not None:
        reports.append(_check_validation(options.valid, reports[0], result, screen))
    screen.result(result)
    for report in reports:
        _refuse(report, strict=options.strict)
    return result


def _issues_json(report: DatasetReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "examples": len(report.examples),
        "issues": [asdict(issue) for issue in report.issues],
    }


def _fix(report: DatasetReport, result: dict[str, Any], screen: Screen) -> DatasetReport:
    """Write the repaired copy and the list of changes, and return the report on the copy."""
    repaired = repair(report)
    if not repaired.lines:
        screen.say("--fix wrote nothing: no line of the file can be repaired.")
        return report
    copy_path, changes_path = (
        output_path(report.path, ".fixed.jsonl"),
        output_path(report.path, ".fixed.txt"),
    )
    for path in (copy_path, changes_path):
        require_new(path)  # before either is written
    write_new(copy_path, report.path, repaired.lines)
    listing = (f"line {one.line}: {one.code}: {one.what}" for one in repaired.changes)
    write_new(changes_path, report.path, listing)
    screen.changes(repaired.changes)
    screen.say(f"{changes_path}: {len(repaired.changes)} change(s)")
    fixed = _check_file(copy_path)
    screen.dataset(fixed, notes=True)
    changes = [asdict(change) for change in repaired.changes]
    result["fixed"] = {"path": str(copy_path), "changes": changes, **_issues_json(fixed)}
    return fixed


def _check_validation(
    path: Path, training: DatasetReport, result: dict[str, Any], screen: Screen
) -> DatasetReport:
    report = _check_file(path, minimum_examples=1, name="validation file", training=training)
    screen.dataset(report)
    result["validation"] = _issues_json(report)
    result["leaked"] = sum(issue.code == "leakage" for issue in report.issues)
    return report


def _refuse(report: DatasetReport, *, strict: bool) -> None:
    name = display_name(report.path)
    if not report.ok:
        message = f"{name} cannot be used for training: {len(report.errors)} error(s). Fix them."
        raise DatasetError(message, code=report.errors[0].code)
    if strict and report.warnings:
        counted = f"{name} has {len(report.warnings)} warning(s), and --strict allows none."
        message = f"{counted} Fix them, or leave --strict out."
        raise DatasetError(message, code=report.warnings[0].code)


def stats(file: Path, plot: Path | None, screen: Screen) -> dict[str, Any]:
    """Show and plot the statistics of a file, and return them for --json."""
    report = _check_file(file, minimum_examples=1)
    if not report.ok:
        screen.dataset(report)
        raise DatasetError(
            f"{display_name(file)} has errors; fix them first.", code=report.errors[0].code
        )
    numbers = describe(report.examples)
    screen.statistics(numbers)
    if plot is not None:
        from emojitune.evaluation.plots import draw_frequencies  # imports matplotlib, which is slow

        draw_frequencies(numbers.frequencies, plot)
        screen.say(str(plot))
    return {**asdict(numbers), "frequencies": dict(numbers.frequencies)}


def split(file: Path, share: float, seed: int, screen: Screen) -> dict[str, Any]:
    """Split `file` into two new files next to it, line by line, and return them for --json."""
    report = check_usable(file, screen, minimum=2, name="file")
    training, validation = split_indices(report.examples, share=share, seed=seed)
    raw = dict(read_lines(file))
    result = {}
    paths = {part: output_path(file, f".{part}.jsonl") for part in ("train", "valid")}
    for path in paths.values():
        require_new(path)  # before either is written
    for (part, path), indices in zip(paths.items(), (training, validation), strict=True):
        write_new(path, file, (raw[report.lines[index]].decode("utf-8-sig") for index in indices))
        screen.say(f"{path}: {len(indices)} example(s)")
        result[part] = {"path": str(path), "examples": len(indices)}
    return result
