"""A file of examples -> a report of all its issues.

Never stops at the first issue and never raises for the content of a file; line numbers are the
file's own, from 1. Jobs look for errors only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emojitune.dataset.checks.duplicates import check_duplicates, check_leakage
from emojitune.dataset.checks.labels import check_labels, check_unseen_labels
from emojitune.dataset.checks.text import check_texts
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.formats import not_json_lines
from emojitune.dataset.parse import parse_line, read_lines
from emojitune.dataset.rules import Issue, Severity, abbreviate_lines, lines_of, make_issue
from emojitune.errors import DatasetError

# OpenAI has a code of its own for these.
_KEY_ERRORS = ("extra_key", "missing_messages", "other_format")


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """The usable examples of a file, the line of each, and all issues."""

    path: Path
    examples: tuple[TrainingExample, ...]
    lines: tuple[int, ...]
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> tuple[Issue, ...]:
        return self.with_severity("error")

    @property
    def warnings(self) -> tuple[Issue, ...]:
        return self.with_severity("warning")

    @property
    def ok(self) -> bool:
        return not self.errors

    @property
    def has_lines(self) -> bool:
        """Whether the file could be read as lines, usable or not."""
        return bool(self.examples or lines_of(self.issues))

    def with_severity(self, severity: Severity) -> tuple[Issue, ...]:
        """The issues of a severity."""
        return tuple(issue for issue in self.issues if issue.severity == severity)


def check_file(
    path: Path,
    *,
    minimum_examples: int = 10,
    name: str = "training file",
    training: DatasetReport | None = None,
    context_tokens: int | None = None,
) -> DatasetReport:
    """Read all of `path` and report its issues; warnings and notes do not make it unusable.

    Args:
        name: How messages call the file.
        training: The training file's report, when `path` is its validation file.
        context_tokens: The length of a model's context, to warn of longer examples.
    """
    read = _read(path, name)
    issues = [
        *read.issues,
        *_check_entire_file(read, minimum_examples, name),
        *check_texts(read.examples, read.lines, context_tokens),
        *check_duplicates(read.examples, read.lines),
        *check_labels(read.examples, read.lines),
    ]
    if training is not None:
        issues += check_leakage(read.examples, read.lines, training.examples, training.lines)
        issues += check_unseen_labels(read.examples, read.lines, training.examples)
    # Issues of the entire file come last: errors in its lines are often their cause.
    issues.sort(key=lambda issue: (issue.line is None, issue.line or 0))
    return DatasetReport(path, read.examples, read.lines, tuple(issues))


def load_examples(
    path: Path, *, minimum_examples: int = 10, param: str = "training_file"
) -> tuple[TrainingExample, ...]:
    """The examples of a file.

    Raises:
        DatasetError: The file has errors; the first one is reported in OpenAI's words.
    """
    return load_report(path, minimum_examples=minimum_examples, param=param).examples


def load_report(
    path: Path, *, minimum_examples: int = 10, param: str = "training_file"
) -> DatasetReport:
    """The examples of a file and their lines.

    Raises:
        DatasetError: The file has errors; the first one is reported in OpenAI's words.
    """
    name = param.replace("_", " ")
    report = _read(path, name)
    errors = report.errors or _check_entire_file(report, minimum_examples, name)
    if errors:
        raise _dataset_error(errors, name, param)
    return report


def _dataset_error(errors: Sequence[Issue], name: str, param: str) -> DatasetError:
    first, more = errors[0], len(errors) - 1
    tail = f" And {more} more: `emojitune data check FILE` lists them all." if more else ""
    if first.code == "invalid_n_examples":
        return DatasetError(first.message, code=first.code, param=param)
    if first.code in _KEY_ERRORS:
        code, cause = "invalid_file_format", f"a file format error in the {name}"
    else:
        code, cause = "invalid_training_file", f"an invalid {name}"
    return DatasetError(
        f"The job failed due to {cause}. {_sentence(first)}{tail}", code=code, param=param
    )


def _sentence(issue: Issue) -> str:
    """OpenAI's sentence, then the line and the advice."""
    if issue.line is None:
        return f"{issue.message} {issue.advice}"
    line = f"(line {issue.line})"
    if issue.code == "preference_format":
        return (
            "Input file is in the fine-tune-preference format, but the specified fine-tuning job "
            f"is not using 'dpo' (provided method=supervised). {line} {issue.advice}"
        )
    place = "" if issue.message.endswith(line) else f" {line}"
    return f"Invalid file format. {issue.message}{place} {issue.advice}"


def _read(path: Path, name: str) -> DatasetReport:
    examples: list[TrainingExample] = []
    lines: list[int] = []
    issues: list[Issue] = []
    try:
        foreign = not_json_lines(path, name)
        if foreign is not None:
            return DatasetReport(path, (), (), (foreign,))
        for number, raw in read_lines(path):
            example = parse_line(number, raw, issues)
            if example is not None:
                examples.append(example)
                lines.append(number)
    except FileNotFoundError:
        issues.append(_missing(path, name))
    except OSError as error:
        message = f"The {name} cannot be read: {path} ({error.strerror})."
        advice = "Give the path of a readable file."
        issues.append(make_issue(None, "invalid_training_file", message, advice))
    return DatasetReport(path, tuple(examples), tuple(lines), tuple(_merge_other_formats(issues)))


def _merge_other_formats(issues: Sequence[Issue]) -> Iterator[Issue]:
    """Merge the issues of lines in the same other format: usually all lines are in it."""
    groups: dict[object, list[Issue]] = {}
    for issue in issues:
        key = issue.problem if issue.code == "other_format" else id(issue)
        groups.setdefault(key, []).append(issue)
    for first, *others in groups.values():
        message = f"{first.message}, like {abbreviate_lines(lines_of(others))}"
        yield replace(first, message=message) if others else first


def _missing(path: Path, name: str) -> Issue:
    try:
        where = f"looked in {Path.cwd()}"
    except OSError:
        where = "the folder you are in no longer exists either"
    message = f"The {name} does not exist: {path} ({where})."
    advice = "Check the path and the folder you are in."
    return make_issue(None, "invalid_training_file", message, advice)


def _check_entire_file(read: DatasetReport, minimum: int, name: str) -> list[Issue]:
    """Issues that only the entire file shows; none if it could not be read as lines."""
    if any(issue.line is None for issue in read.issues):
        return []
    count = len(read.examples)
    if count < minimum:
        message = (
            f"{name.capitalize()} has {count} example(s), but must have at least {minimum} examples"
        )
        return [make_issue(None, "invalid_n_examples", message)]
    if count and not any(example.trained_replies for example in read.examples):
        message = f"The {name} trains nothing: every assistant message has weight 0."
        return [make_issue(None, "invalid_training_file", message, "Give some replies weight 1.")]
    return []
