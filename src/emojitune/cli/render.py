"""The only module that prints: sentences, tables, progress bars, JSON.

Knows values to show, and nothing of where they come from. When a command was asked for --json, its
one object goes to stdout and all the rest to stderr.
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
from rich.progress import BarColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from emojitune.cli.data.standard_input import title
from emojitune.cli.program import as_called
from emojitune.control_chars import escape_control, escape_control_json, one_line
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.repair import Change
from emojitune.dataset.rules import Issue, Severity, lines_in_brief
from emojitune.dataset.statistics import DatasetStatistics
from emojitune.dataset.validation import DatasetReport
from emojitune.evaluation.report import Comparison, ReportRow, shown
from emojitune.evaluation.summary import TITLES
from emojitune.labels import to_emoji
from emojitune.workflow.progress import Progress

MOST_OF_A_KIND = 3  # issues of one code: more would push the others off the screen
MOST_LABELS = 20
BAR_WIDTH = 30
LOG_WIDTH = 200  # a file has no edge; a name that is folded cannot be copied
PLAIN_STEPS = 10  # lines of steps in a log, where no bar can be drawn

_STYLES: dict[Severity, str] = {"error": "red", "warning": "yellow", "note": "cyan"}
_TIMES = frozenset({"created_at", "finished_at", "estimated_finish"})  # in unix seconds
_STOPPING: tuple[Severity, ...] = ("error", "warning")


@dataclass(frozen=True, slots=True)
class MaskedToken:
    """One token of an example, and whether it is learned."""

    id: int
    text: str
    trained: bool


class _Console(Console):
    """A console for texts of files and servers: nothing in them drives the terminal."""

    def render_str(self, text: str, **how: Any) -> Text:
        return super().render_str(escape_control(text), **how)


class _TextColumn(TextColumn):
    """The same for texts beside a bar, which do not pass `render_str`."""

    def render(self, task: Task) -> Text:
        return Text(escape_control(self.text_format.format(task=task)))


def _console(*, stderr: bool) -> Console:
    # Nothing in a text is markup, and no `:smile:` is replaced.
    console = _Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = LOG_WIDTH
    return console


def show_error(text: str) -> None:
    """What broke a command."""
    _console(stderr=True).print(as_called(text), style="red", soft_wrap=True)


class Screen:
    """What one command prints on."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = _console(stderr=as_json)

    def say(self, text: str = "", *, style: str | None = None) -> None:
        self.console.print(text, style=style, soft_wrap=True)

    def step(self, title: str) -> None:
        """The heading of the next thing that happens."""
        self.say(f"\n{title}", style="bold cyan")

    def result(self, value: Any) -> None:
        """The one JSON object of a command, if it was asked for."""
        if self.as_json:
            readable = (sys.stdout.encoding or "").lower().startswith("utf")  # else "?" for emoji
            told = json.dumps(value, ensure_ascii=not readable, indent=2)
            sys.stdout.write(escape_control_json(told) + "\n")
            sys.stdout.flush()

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(box=box.SIMPLE_HEAD)
        for place, header in enumerate(headers):
            table.add_column(header, overflow="fold", no_wrap=place == 0)
        for row in rows:
            table.add_row(*map(one_line, row))
        self.console.print(table)

    def fields(self, value: dict[str, Any]) -> None:
        """All fields of an object, one a line."""
        for name, content in value.items():
            if name in _TIMES and isinstance(content, int):
                content = _local_time(content)
            shown = content if isinstance(content, str) else json.dumps(content)
            self.say(f"{name}: {one_line(shown)}")

    def event(self, seconds: int, level: str, message: str) -> None:
        """One event of a job, on one line."""
        self.say(one_line(f"{_local_time(seconds)} [{level}] {message}"))

    def reply(self, text: str) -> None:
        """A model's reply, and as emoji where its labels are known."""
        emoji = to_emoji(text)
        self.say(text if emoji == text else f"{text}  {emoji}", style="bold")

    def dataset(self, report: DatasetReport, *, notes: bool = False) -> None:
        """Each kind of issue with its first cases, the worst first; notes only if asked for."""
        shown: tuple[Severity, ...] = ("error", "warning", "note") if notes else _STOPPING
        for severity in shown:
            kinds: dict[str, list[Issue]] = {}
            for issue in report.of(severity):
                kinds.setdefault(issue.code, []).append(issue)
            for kind in kinds.values():
                self._kind(kind)
        counts = ", ".join(f"{len(report.of(one))} {one}(s)" for one in shown)
        self.say(f"{title(report.path)}: {len(report.examples)} usable example(s), {counts}")

    def _kind(self, issues: Sequence[Issue]) -> None:
        for issue in issues[:MOST_OF_A_KIND]:
            self._issue(issue)
        more = [issue.line for issue in issues[MOST_OF_A_KIND:] if issue.line is not None]
        if more:
            style = _STYLES[issues[0].severity]
            where = lines_in_brief(more)
            self.say(f"... and {len(more)} more [{issues[0].code}]: {where}", style=style)

    def _issue(self, issue: Issue) -> None:
        line = f"(line {issue.line})"
        told = issue.line is None or issue.message.endswith(line)
        what = issue.message if told else f"{issue.message.removesuffix('.')} {line}"
        text = (
            f"{issue.severity} [{issue.code}]: {what.removesuffix('.')}. {as_called(issue.advice)}"
        )
        self.say(text, style=_STYLES[issue.severity])

    def changes(self, changes: Sequence[Change]) -> None:
        """What a cleaned copy has otherwise, by kind."""
        kinds: dict[tuple[str, str], list[int]] = {}
        for change in changes:
            kinds.setdefault((change.code, change.what), []).append(change.line)
        rows = [(code, what, lines_in_brief(at)) for (code, what), at in kinds.items()]
        self.table(("code", "changed", "where"), rows[:MOST_LABELS])
        if len(rows) > MOST_LABELS:
            self.say(f"... and {len(rows) - MOST_LABELS} more; the list has all")

    def example(self, example: TrainingExample) -> None:
        """The messages of one example, and which of them are learned."""
        for message in example.conversation:
            learned = message.role == "assistant" and message.weight != 0
            role = f"{message.role} (trained)" if learned else message.role
            self.say(f"{role}: {message.content}", style="green" if learned else None)

    def tokens(self, tokens: Sequence[MaskedToken]) -> None:
        """Tokens between bars; those that are learned between double brackets, and green."""
        text = Text()
        learned = False
        for token in tokens:
            border = "" if not text or text.plain.endswith("\n") else "│"
            if token.trained != learned:
                border = "⟦" if token.trained else "⟧"
                learned = token.trained
            text.append(border, style="dim")
            shown = escape_control(token.text).replace("\n", "⏎\n")
            text.append(shown, style="bold green" if learned else None)
        text.append("⟧" if learned else "", style="dim")
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
            for reply, count in numbers.frequencies[:MOST_LABELS]
        ]
        self.table(("reply", "emoji", "examples", ""), rows)
        if distinct > MOST_LABELS:
            self.say(f"... and {distinct - MOST_LABELS} more; --json lists all")

    def scores(self, rows: Sequence[ReportRow]) -> None:
        """The figures that tell most, a line for each row."""
        titles = dict.fromkeys(title for row in rows for title in row.short)
        cells = [
            (short_name(row.model), row.decoding, *(row.short.get(title, "") for title in titles))
            for row in rows
        ]
        self.table(("model", "decoding", *titles), cells)

    def figures(self, rows: Sequence[ReportRow]) -> None:
        """Every figure of one model with its interval: a line each, a column for each decoding."""
        for place, row in enumerate(rows):
            if not place:
                self.say(f"{len(row.evaluation.scored)} examples; in brackets 95% intervals")
        names = dict.fromkeys(name for row in rows for name in row.figures)
        cells = [
            (
                TITLES[name],
                *(shown(name, row.figures[name]) if name in row.figures else "" for row in rows),
            )
            for name in names
        ]
        self.table(("", *(row.decoding for row in rows)), cells)

    def contest(self, rows: Sequence[ReportRow], compared: Sequence[Comparison]) -> None:
        """Ours beside the baselines: a line each, then what ours has more."""
        names = ("top_1", "top_5", "same_emoji_top_1")
        cells = [
            (row.model, row.decoding, *(shown(n, row.figures[n]) for n in names)) for row in rows
        ]
        self.table(("", "decoding", *(TITLES[name] for name in names)), cells)
        for one in compared:
            found = one.differences["top_1"]
            self.say(
                f"{one.row.model} less {one.against.model}, top-1: "
                f"{shown('top_1', found.figure)}, p = {found.p_value:.4f}"
            )

    def comparison(self, one: Comparison) -> None:
        """What two models differ in, each difference with its interval and p-value."""
        self.step(f"{one.row.model} less {one.against.model}, {one.row.decoding}")
        cells = [
            (TITLES[name], shown(name, difference.figure), f"{difference.p_value:.4f}")
            for name, difference in one.differences.items()
        ]
        self.table(("", "difference", "p (paired)"), cells)

    def follow(self, job: Iterable[Progress]) -> Progress:
        """Draw a job as it goes on; returns its last state."""
        drawn = self._with_bar(job) if self.console.is_terminal else self._with_lines(job)
        (last,) = deque(drawn, maxlen=1)
        return last

    def _with_bar(self, job: Iterable[Progress]) -> Iterator[Progress]:
        columns = (
            _TextColumn("{task.description}"),
            BarColumn(),
            _TextColumn("{task.fields[news]}"),
        )
        with Bars(*columns, console=self.console) as bars:
            task = bars.add_task("waiting", total=None, news="")
            for state in job:
                if state.message and not _is_step(state):
                    bars.print(state.message, soft_wrap=True)
                bars.update(
                    task,
                    description=state.status,
                    total=state.total_steps,
                    completed=state.step,
                    news=_news(state),
                )
                yield state

    def _with_lines(self, job: Iterable[Progress]) -> Iterator[Progress]:
        shown = 0
        for state in job:
            if state.message and not _is_step(state):
                self.say(state.message)
            elif state.message and _tenth(state) != shown:
                shown = _tenth(state)
                self.say(_news(state))
            yield state

    @contextmanager
    def counting(self) -> Iterator[Callable[[str, int, int | None], None]]:
        """A callable (what, done, all) that draws one bar for each `what`."""
        columns = (
            _TextColumn("{task.description}"),
            BarColumn(),
            _TextColumn("{task.percentage:.0f}%"),
        )
        with Bars(*columns, console=self.console, disable=not self.console.is_terminal) as bars:
            tasks: dict[str, TaskID] = {}

            def count(what: str, done: int, total: int | None) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                    if not self.console.is_terminal:
                        self.say(f"{what} ...")
                bars.update(tasks[what], completed=done, total=total)

            yield count

    def ask(self, question: str) -> bool:
        """Yes or no; without a terminal nobody can say yes."""
        if sys.stdin is None or not sys.stdin.isatty():
            return False
        self.console.print(f"{question} [y/N] ", end="")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


def short_name(model: str) -> str:
    """What a model is to the comparison: its full name would fold the table at 80 columns."""
    return "fine-tuned" if model.startswith("ft:") else "untuned base"


def _local_time(seconds: int) -> str:
    """Unix seconds for people, with the distance to UTC."""
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().isoformat(" ")
    except (OverflowError, ValueError, OSError):  # no time that a calendar has
        return str(seconds)


def _is_step(state: Progress) -> bool:
    return state.message is not None and state.message.startswith("Step ")


def _tenth(state: Progress) -> int:
    return 1 + state.step * PLAIN_STEPS // max(state.total_steps or 1, 1)


def _news(state: Progress) -> str:
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
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
