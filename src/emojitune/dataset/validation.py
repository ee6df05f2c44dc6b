"""A file of examples -> a report of everything that is wrong with it.

Never stops at the first issue and never raises over what a file holds; line numbers are the file's
own, from 1. A job fails for errors alone, and looks for nothing else.
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
from emojitune.dataset.rules import Issue, Severity, abbreviate_lines, make_issue
from emojitune.errors import DatasetError

# OpenAI has a code of its own for these.
_KEY_ERRORS = ("extra_key", "missing_messages", "other_format")


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """The usable examples of a file, the line of each, and every issue."""

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
        return bool(self.examples) or any(issue.line is not None for issue in self.issues)

    def with_severity(self, severity: Severity) -> tuple[Issue, ...]:
        """The issues that weigh so much."""
        return tuple(issue for issue in self.issues if issue.severity == severity)


def check_file(
    path: Path,
    *,
    minimum_examples: int = 10,
    name: str = "training file",
    training: DatasetReport | None = None,
) -> DatasetReport:
    """Read all of `path` and report on it; warnings and notes do not make it unusable.

    Args:
        training: The training file's report, when `path` is the validation file to it.
    """
    found = _read(path, name)
    issues = [*found.issues, *_file_issues(found, minimum_examples, name), *_doubts(found)]
    if training is not None:
        issues += check_leakage(found.examples, found.lines, training.examples, training.lines)
        issues += check_unseen_labels(found.examples, found.lines, training.examples)
    # What the whole file lacks is a consequence of its lines where these have errors.
    issues.sort(key=lambda issue: (issue.line is None, issue.line or 0))
    return DatasetReport(path, found.examples, found.lines, tuple(issues))


def load_examples(
    path: Path, *, minimum_examples: int = 10, param: str = "training_file"
) -> tuple[TrainingExample, ...]:
    """The examples of `path`, or a DatasetError with the first issue in OpenAI's words."""
    return load_report(path, minimum_examples=minimum_examples, param=param).examples


def load_report(
    path: Path, *, minimum_examples: int = 10, param: str = "training_file"
) -> DatasetReport:
    """The same with the lines of the examples."""
    name = param.replace("_", " ")
    found = _read(path, name)
    errors = [i for i in found.issues if i.severity == "error"]
    errors = errors or _file_issues(found, minimum_examples, name)
    if errors:
        raise _dataset_error(errors, name, param)
    return found


def _dataset_error(errors: list[Issue], name: str, param: str) -> DatasetError:
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
    """OpenAI's sentence, then what is ours: the line and the advice."""
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
        whole = not_json_lines(path)
        if whole is not None:
            code, what, advice = whole
            issues.append(make_issue(None, code, f"The {name} {what}.", advice))
            return DatasetReport(path, (), (), tuple(issues))
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
    return DatasetReport(path, tuple(examples), tuple(lines), tuple(_gathered(issues)))


def _gathered(issues: Sequence[Issue]) -> Iterator[Issue]:
    """The issues, with one for all lines in the same other format: a file has it in each line."""
    alike: dict[object, list[Issue]] = {}
    for one in issues:
        said = one.message.removeprefix(f"Example {one.line}")
        alike.setdefault(said if one.code == "other_format" else id(one), []).append(one)
    for first, *more in alike.values():
        where = abbreviate_lines([one.line for one in more if one.line is not None])
        message = f"{first.message}, like {where}"
        yield replace(first, message=message) if more else first


def _missing(path: Path, name: str) -> Issue:
    try:
        where = f"looked in {Path.cwd()}"
    except OSError:
        where = "the folder you are in no longer exists either"
    message = f"The {name} does not exist: {path} ({where})."
    advice = "Check the path and the folder you are in."
    return make_issue(None, "invalid_training_file", message, advice)


def _file_issues(found: DatasetReport, minimum: int, name: str) -> list[Issue]:
    """What only the whole file shows; silent when the file could not even be opened."""
    if any(issue.line is None for issue in found.issues):
        return []
    count = len(found.examples)
    if count < minimum:
        message = (
            f"{name.capitalize()} has {count} example(s), but must have at least {minimum} examples"
        )
        return [make_issue(None, "invalid_n_examples", message)]
    if count and not any(example.trained_replies for example in found.examples):
        message = f"The {name} trains nothing: every assistant message has weight 0."
        return [make_issue(None, "invalid_training_file", message, "Give some replies weight 1.")]
    return []


def _doubts(found: DatasetReport) -> Iterator[Issue]:
    """Usable, but seldom meant."""
    yield from check_texts(found.examples, found.lines)
    yield from check_duplicates(found.examples, found.lines)
    yield from check_labels(found.examples, found.lines)
