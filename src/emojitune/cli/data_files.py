"""`emojitune data`: check, stats and split."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emojitune.cli.render import Screen
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.split import leakage, split_examples
from emojitune.dataset.statistics import describe
from emojitune.dataset.validation import DatasetReport, check_file
from emojitune.errors import DatasetError, InvalidRequestError


def check_usable(path: Path, screen: Screen, *, minimum: int, name: str) -> DatasetReport:
    """Show what is wrong with a file, and refuse to go on with one that has errors."""
    report = check_file(path, minimum_examples=minimum, name=name)
    screen.dataset(report)
    if not report.ok:
        raise DatasetError(
            f"The {name} {path} cannot be used: {len(report.errors)} error(s), listed above. "
            "Mend them and run this again.",
            code=report.errors[0].code,
        )
    return report


def warn_of_leakage(
    training: tuple[TrainingExample, ...], validation: tuple[TrainingExample, ...], screen: Screen
) -> int:
    """Say how many questions of the validation file stand, or nearly stand, in the other."""
    shared = len({place for _, place in leakage(training, validation)})
    if shared:
        warning = f"warning: {shared} question(s) of the validation file are like trained ones."
        screen.say(warning, style="yellow")
    return shared


def check(file: Path, valid: Path | None, screen: Screen) -> dict[str, Any]:
    """What `data check` shows and returns; --json carries the issues even of an unusable file."""
    report = check_file(file)
    screen.dataset(report)
    result: dict[str, Any] = {
        "ok": report.ok,
        "examples": len(report.examples),
        "issues": [asdict(issue) for issue in report.issues],
    }
    if not report.ok:
        screen.result(result)
        raise DatasetError(f"{file} cannot be used for training.", code=report.errors[0].code)
    if valid is not None:
        other = check_usable(valid, screen, minimum=1, name="validation file")
        result["leaked"] = warn_of_leakage(report.examples, other.examples, screen)
    return result


def stats(file: Path, screen: Screen) -> dict[str, Any]:
    """What `data stats` shows and returns."""
    report = check_file(file, minimum_examples=1)
    if not report.ok:
        screen.dataset(report)
        raise DatasetError(f"{file} has errors; mend them first.", code=report.errors[0].code)
    numbers = describe(report.examples)
    screen.statistics(numbers)
    return {**asdict(numbers), "frequencies": dict(numbers.frequencies)}


def split(file: Path, share: float, seed: int, screen: Screen) -> dict[str, Any]:
    """Cut `file` and write both parts beside it; nothing is overwritten."""
    report = check_usable(file, screen, minimum=2, name="file")
    training, validation = split_examples(report.examples, share=share, seed=seed)
    result = {}
    for part, examples in (("train", training), ("valid", validation)):
        path = file.with_suffix(f".{part}.jsonl")
        _write(path, examples)
        screen.say(f"{path}: {len(examples)} example(s)")
        result[part] = {"path": str(path), "examples": len(examples)}
    return result


def _write(path: Path, examples: tuple[TrainingExample, ...]) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="\n") as out:
            out.writelines(example.to_json() + "\n" for example in examples)
    except OSError as error:
        raise InvalidRequestError(
            f"{path} cannot be written ({error.strerror}). Nothing is overwritten: move it away."
        ) from error
