"""The only module that prints: sentences, tables, progress bars, JSON.

Shows values and does not know where they come from. With --json, a command's one object goes to
stdout and everything else to stderr.
"""

import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from emojitune.cli.invocation import as_invoked
from emojitune.cli.paths import display_name
from emojitune.control_chars import escape_control, escape_control_json, one_line
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.repair import Change
from emojitune.dataset.rules import Issue, Severity, abbreviate_lines
from emojitune.dataset.statistics import DatasetStatistics
from emojitune.dataset.validation import DatasetReport
from emojitune.evaluation.report import Comparison, ReportRow, format_estimate
from emojitune.evaluation.summary import TITLES
from emojitune.labels import to_emoji
from emojitune.models.catalog import is_fine_tuned
from emojitune.workflow.progress import Progress

MAX_ISSUES_PER_CODE = 3  # more would push the other issues off the screen
MAX_LABELS = 20
BAR_WIDTH = 30
LOG_WIDTH = 200  # output that is not a terminal: a name that is folded cannot be copied
LOGGED_STEPS = 10  # lines about steps where no progress bar can be drawn

_STYLES: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}
_TIMES = frozenset({"created_at", "finished_at", "estimated_finish"})  # in unix seconds
_STOPPING: tuple[Severity, ...] = ("error", "warning")


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """A token of an example, and whether the loss mask includes it."""

    id: int
    text: str
    trained: bool


class _Console(Console):
    """A console that escapes control characters: text of files and servers cannot control the
    terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape_control(text), **options)


class _TextColumn(TextColumn):
    """A column of a progress bar that escapes control characters; it bypasses `render_str`."""

    def render(self, task: Task) -> Text:
        return Text(escape_control(self.text_format.format(task=task)))


def _make_console(*, stderr: bool) -> Console:
    # Text is never markup, and `:smile:` stays as it is.
    console = _Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def show_error(text: str) -> None:
    """Print an error message to stderr."""
    _make_console(stderr=True).print(as_invoked(text), style="red", soft_wrap=True)


class Screen:
    """The output of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _make_console(stderr=as_json)

    def say(self, text: str = "", *, style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True)

    def heading(self, title: str) -> None:
        """Print the heading of a section."""
        self.say(f"\n{title}", style="bold cyan")

    def result(self, value: Any) -> None:
        """Print the command's JSON object if --json was given."""
        if self.as_json:
            readable = (sys.stdout.encoding or "").lower().startswith("utf")  # else "?" for emoji
            text = json.dumps(value, ensure_ascii=not readable, indent=2)
            sys.stdout.write(escape_control_json(text) + "\n")
            sys.stdout.flush()

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        for column, header in enumerate(headers):
            table.add_column(header, overflow="fold", no_wrap=column == 0)
        for row in rows:
            table.add_row(*map(one_line, row))
        self.console.print(table)

    def fields(self, value: dict[str, Any]) -> None:
        """Print all fields of an object, one per line."""
        for name, content in value.items():
            if name in _TIMES and isinstance(content, int):
                content = _local_time(content)
            shown = content if isinstance(content, str) else json.dumps(content)
            self.say(f"{name}: {one_line(shown)}")

    def event(self, seconds: int, level: str, message: str) -> None:
        """Print an event of a job on one line."""
        self.say(one_line(f"{_local_time(seconds)} [{level}] {message}"))

    def reply(self, text: str) -> None:
        """Print a model's reply, with the emoji of known labels."""
        emoji = to_emoji(text)
        self.say(text if emoji == text else f"{text}  {emoji}", style="bold")

    def dataset(self, report: DatasetReport, *, notes: bool = False) -> None:
        """Print the first issues of each code, by severity; notes only if `notes`."""
        shown: tuple[Severity, ...] = ("error", "warning", "note") if notes else _STOPPING
        for severity in shown:
            by_code: dict[str, list[Issue]] = {}
            for issue in report.with_severity(severity):
                by_code.setdefault(issue.code, []).append(issue)
            for issues in by_code.values():
                self._issues_of_code(issues)
        counts = ", ".join(f"{len(report.with_severity(one))} {one}(s)" for one in shown)
        self.say(f"{display_name(report.path)}: {len(report.examples)} usable example(s), {counts}")

    def _issues_of_code(self, issues: Sequence[Issue]) -> None:
        for issue in issues[:MAX_ISSUES_PER_CODE]:
            self._show_issue(issue)
        more = [issue.line for issue in issues[MAX_ISSUES_PER_CODE:] if issue.line is not None]
        if more:
            style = _STYLES[issues[0].severity]
            where = abbreviate_lines(more)
            self.say(f"... and {len(more)} more [{issues[0].code}]: {where}", style=style)

    def _show_issue(self, issue: Issue) -> None:
        line = f"(line {issue.line})"
        has_line = issue.line is None or issue.message.endswith(line)
        what = issue.message if has_line else f"{issue.message.removesuffix('.')} {line}"
        text = (
            f"{issue.severity} [{issue.code}]: {what.removesuffix('.')}. {as_invoked(issue.advice)}"
        )
        self.say(text, style=_STYLES[issue.severity])

    def changes(self, changes: Sequence[Change]) -> None:
        """Print a table of the changes in a repaired copy, grouped by code."""
        by_code: dict[tuple[str, str], list[int]] = {}
        for change in changes:
            by_code.setdefault((change.code, change.what), []).append(change.line)
        rows = [(code, what, abbreviate_lines(at)) for (code, what), at in by_code.items()]
        self.table(("code", "changed", "where"), rows[:MAX_LABELS])
        if len(rows) > MAX_LABELS:
            self.say(f"... and {len(rows) - MAX_LABELS} more; the list has all")

    def example(self, example: TrainingExample) -> None:
        """Print the messages of an example, marking those that are trained on."""
        for message in example.conversation:
            is_trained = message.role == "assistant" and message.weight != 0
            role = f"{message.role} (trained)" if is_trained else message.role
            self.say(f"{role}: {message.content}", style="green" if is_trained else None)

    def tokens(self, tokens: Sequence[MaskedToken]) -> None:
        """Print tokens between bars; trained ones between double brackets and in green."""
        text = Text()
        is_trained = False
        for token in tokens:
            border = "" if not text or text.plain.endswith("\n") else "│"
            if token.trained != is_trained:
                border = "⟦" if token.trained else "⟧"
                is_trained = token.trained
            text.append(border, style="dim")
            shown = escape_control(token.text).replace("\n", "⏎\n")
            text.append(shown, style="bold green" if is_trained else None)
        text.append("⟧" if is_trained else "", style="dim")
        text.rstrip()
        self.console.print(text, soft_wrap=True)
        trained = sum(token.trained for token in tokens)
        self.say(f"{len(tokens)} tokens, {trained} of them trained: those between ⟦ and ⟧")

    def statistics(self, numbers: DatasetStatistics) -> None:
        least, median, most = numbers.words
        distinct = len(numbers.frequencies)
        once = sum(count == 1 for _, count in numbers.frequencies)
        self.say(f"{numbers.examples} examples, {distinct} different replies, {once} of them once")
        self.say(f"{numbers.labels_in_style} replies are text labels in parentheses, not emoji")
        self.say(f"questions have {least} to {most} words, median {median:g}")
        self.say(f"about {numbers.estimated_tokens} tokens an epoch")
        for prompt in numbers.system_prompts[:3]:
            self.say(f"system prompt: {prompt}")
        widest = max((count for _, count in numbers.frequencies), default=1)
        rows = [
            (reply, to_emoji(reply), str(count), "█" * math.ceil(BAR_WIDTH * count / widest))
            for reply, count in numbers.frequencies[:MAX_LABELS]
        ]
        self.table(("reply", "emoji", "examples", ""), rows)
        if distinct > MAX_LABELS:
            self.say(f"... and {distinct - MAX_LABELS} more; --json lists all")

    def scores(self, rows: Sequence[ReportRow]) -> None:
        """Print the most important metrics, one line per row."""
        titles = dict.fromkeys(title for row in rows for title in row.short)
        cells = [
            (short_name(row.model), row.decoding, *(row.short.get(title, "") for title in titles))
            for row in rows
        ]
        self.table(("model", "decoding", *titles), cells)

    def estimates(self, rows: Sequence[ReportRow]) -> None:
        """Print all metrics of one model with their intervals: a line per metric, a column per
        decoding."""
        for column, row in enumerate(rows):
            if not column:
                self.say(f"{len(row.evaluation.scored)} examples; in brackets 95% intervals")
        names = dict.fromkeys(name for row in rows for name in row.estimates)
        cells = [
            (
                TITLES[name],
                *(
                    format_estimate(name, row.estimates[name]) if name in row.estimates else ""
                    for row in rows
                ),
            )
            for name in names
        ]
        self.table(("", *(row.decoding for row in rows)), cells)

    def cross_validation(self, rows: Sequence[ReportRow], compared: Sequence[Comparison]) -> None:
        """Print a line for the fine-tuned model and each baseline, then the differences."""
        names = ("top_1", "top_5", "same_emoji_top_1")
        cells = [
            (row.model, row.decoding, *(format_estimate(n, row.estimates[n]) for n in names))
            for row in rows
        ]
        self.table(("", "decoding", *(TITLES[name] for name in names)), cells)
        for one in compared:
            difference = one.differences["top_1"]
            self.say(
                f"{one.row.model} less {one.against.model}, top-1: "
                f"{format_estimate('top_1', difference.estimate)}, p = {difference.p_value:.4f}"
            )

    def comparison(self, one: Comparison) -> None:
        """Print the differences between two models with their intervals and p-values."""
        self.heading(f"{one.row.model} less {one.against.model}, {one.row.decoding}")
        cells = [
            (TITLES[name], format_estimate(name, difference.estimate), f"{difference.p_value:.4f}")
            for name, difference in one.differences.items()
        ]
        self.table(("", "difference", "p (paired)"), cells)

    def follow(self, job: Iterable[Progress]) -> Progress:
        """Draw a job's progress and return its last state."""
        states = self._with_bar(job) if self.console.is_terminal else self._with_lines(job)
        (last,) = deque(states, maxlen=1)
        return last

    def _with_bar(self, job: Iterable[Progress]) -> Iterator[Progress]:
        columns = (
            _TextColumn("{task.description}"),
            BarColumn(),
            _TextColumn("{task.fields[status_line]}"),
        )
        with Bars(*columns, console=self.console) as bars:
            task = bars.add_task("waiting", total=None, status_line="")
            for state in job:
                if state.message and not _is_step(state):
                    bars.print(state.message, soft_wrap=True)
                bars.update(
                    task,
                    description=state.status,
                    total=state.total_steps,
                    completed=state.step,
                    status_line=_status_line(state),
                )
                yield state

    def _with_lines(self, job: Iterable[Progress]) -> Iterator[Progress]:
        shown = 0
        for state in job:
            if state.message and not _is_step(state):
                self.say(state.message)
            elif state.message and _tenth(state) != shown:
                shown = _tenth(state)
                self.say(_status_line(state))
            yield state

    @contextmanager
    def progress_bars(
        self, *, remaining: bool = False
    ) -> Iterator[Callable[[str, int, int | None], None]]:
        """A callback (name, done, total) that draws one progress bar per name.

        Args:
            remaining: Whether to show numbers and the remaining time instead of a percentage.
        """
        columns: list[ProgressColumn] = [_TextColumn("{task.description}"), BarColumn()]
        if remaining:
            columns += [MofNCompleteColumn(), TimeRemainingColumn()]
        else:
            columns += [_TextColumn("{task.percentage:.0f}%")]
        with Bars(*columns, console=self.console, disable=not self.console.is_terminal) as bars:
            tasks: dict[str, TaskID] = {}

            def update(name: str, done: int, total: int | None) -> None:
                if name not in tasks:
                    tasks[name] = bars.add_task(name, total=total)
                    if not self.console.is_terminal:
                        number = f" ({total})" if remaining and total is not None else ""
                        self.say(f"{name}{number} ...")
                bars.update(tasks[name], completed=done, total=total)

            yield update

    def ask(self, question: str) -> bool:
        """The answer to a yes-or-no question; False without a terminal."""
        if sys.stdin is None or not sys.stdin.isatty():
            return False
        self.console.print(f"{question} [y/N] ", end="")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


def short_name(model: str) -> str:
    """A model's role in the comparison: its full name would not fit in 80 columns."""
    return "fine-tuned" if is_fine_tuned(model) else "untuned base"


def _local_time(seconds: int) -> str:
    """Unix seconds as a local time with its UTC offset."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ")
    except (OverflowError, ValueError, OSError):  # outside the calendar
        return str(seconds)


def _is_step(state: Progress) -> bool:
    return state.message is not None and state.message.startswith("Step ")


def _tenth(state: Progress) -> int:
    return 1 + state.step * LOGGED_STEPS // max(state.total_steps or 1, 1)


def _status_line(state: Progress) -> str:
    parts = []
    if state.epoch is not None:
        parts.append(f"epoch {state.epoch}/{state.epochs}")
    if state.step:
        parts.append(f"step {state.step}/{state.total_steps or '?'}")
    if state.loss is not None:
        parts.append(f"loss {state.loss:.2f}")
    if state.seconds_left is not None:
        parts.append(f"{_duration(state.seconds_left)} left")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes} min {remainder} s" if minutes else f"{remainder} s"
