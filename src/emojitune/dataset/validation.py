"""A file of examples -> a report of everything that is wrong with it.

Never stops at the first issue and never raises over what a file holds. Sentences follow OpenAI's,
so that a job's error reads the same here and there; line numbers are the file's own, from 1.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, get_args

from emojitune.dataset.example import Message, Role, TrainingExample
from emojitune.dataset.split import conflicts, duplicates
from emojitune.errors import DatasetError

ROLES: tuple[str, ...] = get_args(Role)
_TOOL_KEYS = {"tools", "parallel_tool_calls", "functions"}
_TOOL_MESSAGE_KEYS = {"tool_calls", "tool_call_id", "function_call"}
_TOOL_ROLES = ("tool", "function")
_KEY_ERRORS = ("extra_key", "missing_messages")  # OpenAI has a code of its own for these
_PREFERENCE_KEYS = {
    "preferred_output",
    "non_preferred_output",
    "preferred_completion",
    "non_preferred_completion",
}
_NO_TOOLS = "Tool calls cannot be trained on yet: leave such examples out."


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to mend. `line` is None when it concerns the file as a whole."""

    line: int | None
    code: str
    message: str
    advice: str
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """The usable examples of a file, the line of each, and every issue."""

    path: Path
    examples: tuple[TrainingExample, ...]
    lines: tuple[int, ...]
    issues: tuple[Issue, ...]

    @property
    def errors(self) -> tuple[Issue, ...]:
        return tuple(issue for issue in self.issues if issue.severity == "error")

    @property
    def warnings(self) -> tuple[Issue, ...]:
        return tuple(issue for issue in self.issues if issue.severity == "warning")

    @property
    def ok(self) -> bool:
        return not self.errors


def check_file(
    path: Path, *, minimum_examples: int = 10, name: str = "training file"
) -> DatasetReport:
    """Read all of `path` and report on it; warnings do not make it unusable."""
    found = _read(path, name)
    issues = [*found.issues, *_file_issues(found, minimum_examples, name), *_doubts(found)]
    issues.sort(key=lambda issue: issue.line or 0)
    return DatasetReport(path, found.examples, found.lines, tuple(issues))


def load_examples(
    path: Path, *, minimum_examples: int = 10, param: str = "training_file"
) -> tuple[TrainingExample, ...]:
    """The examples of `path`, or a DatasetError with the first issue in OpenAI's words."""
    name = param.replace("_", " ")
    found = _read(path, name)
    errors = [i for i in found.issues if i.severity == "error"]
    errors = errors or _file_issues(found, minimum_examples, name)
    if errors:
        raise _dataset_error(errors, name, param)
    return found.examples


def _dataset_error(errors: list[Issue], name: str, param: str) -> DatasetError:
    first, more = errors[0], len(errors) - 1
    tail = f" And {more} more: `emojitune data check FILE` lists them all." if more else ""
    if first.line is None:
        return DatasetError(first.message + tail, code=first.code, param=param)
    if first.code in _KEY_ERRORS:
        code, cause = "invalid_file_format", f"a file format error in the {name}"
    else:
        code, cause = "invalid_training_file", f"an invalid {name}"
    return DatasetError(
        f"The job failed due to {cause}. {_sentence(first)}{tail}", code=code, param=param
    )


def _sentence(issue: Issue) -> str:
    """OpenAI's sentence, then what is ours: the line and the advice."""
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
        for number, raw in _raw_lines(path):
            line = _Line(number, issues)
            example = line.parse(raw)
            if example is not None:
                examples.append(example)
                lines.append(number)
    except FileNotFoundError:
        issues.append(_missing(path, name))
    except OSError as error:
        advice = "Give the path of a readable file."
        message = f"The {name} cannot be read: {path} ({error.strerror})."
        issues.append(Issue(None, "invalid_training_file", message, advice))
    return DatasetReport(path, tuple(examples), tuple(lines), tuple(issues))


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    # Bytes split at \n only: U+2028 and its kin are ordinary characters of a JSON string.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            yield number, raw.removesuffix(b"\n").removesuffix(b"\r")


def _missing(path: Path, name: str) -> Issue:
    message = f"The {name} does not exist: {path} (looked in {Path.cwd()})."
    return Issue(
        None, "invalid_training_file", message, "Check the path and the folder you are in."
    )


def _file_issues(found: DatasetReport, minimum: int, name: str) -> list[Issue]:
    """What only the whole file shows; silent when the file could not even be opened."""
    if any(issue.line is None for issue in found.issues):
        return []
    count = len(found.examples)
    if count < minimum:
        message = (
            f"{name.capitalize()} has {count} example(s), but must have at least {minimum} examples"
        )
        return [Issue(None, "invalid_n_examples", message, "Add examples, one JSON object a line.")]
    if count and not any(example.trained_replies for example in found.examples):
        message = f"The {name} trains nothing: every assistant message has weight 0."
        return [Issue(None, "invalid_training_file", message, "Give some replies weight 1.")]
    return []


def _doubts(found: DatasetReport) -> Iterator[Issue]:
    """Warnings: usable, but seldom meant."""
    for group in duplicates(found.examples):
        first, *again = (found.lines[i] for i in group)
        for line in again:
            message = f"Example {line} says the same as example {first}."
            yield Issue(line, "duplicate_example", message, "Keep one of them.", "warning")
    for group in conflicts(found.examples):
        first, *others = (found.lines[i] for i in group)
        for line in others:
            message = f"Example {line} has the prompt of example {first}, but another reply."
            yield Issue(line, "conflicting_reply", message, "Decide on one reply.", "warning")


class _Broken(Exception):
    """A line of which nothing more can be said; its issue is noted already."""


@dataclass(frozen=True, slots=True)
class _Line:
    """The checks of one line; each notes its issue and goes on as long as there is sense in it."""

    number: int
    issues: list[Issue]

    def parse(self, raw: bytes) -> TrainingExample | None:
        before = len(self.issues)
        try:
            messages = self._messages(self._row(self._text(raw)))
        except _Broken:
            return None
        sound = all(issue.severity == "warning" for issue in self.issues[before:])
        return TrainingExample(tuple(messages)) if sound else None

    def _note(
        self,
        code: str,
        what: str,
        advice: str,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        message = f"Example {self.number}{what}"
        self.issues.append(Issue(self.number, code, message, advice, severity))

    def _stop(self, code: str, what: str, advice: str) -> NoReturn:
        self._note(code, what, advice)
        raise _Broken

    def _unparsable(self, code: str, reason: str, advice: str) -> NoReturn:
        self._stop(code, f" cannot be parsed. Error: {reason} (line {self.number})", advice)

    def _text(self, raw: bytes) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"line is not UTF-8: byte {raw[error.start]:#04x} at position {error.start}"
            self._unparsable("not_utf8", reason, "Save the file as UTF-8.")
        if self.number == 1 and text.startswith("\ufeff"):
            what = " starts with a byte order mark."
            self._note("byte_order_mark", what, "Save the file as UTF-8 without BOM.")
            text = text[1:]
        if not text.strip():
            self._stop("blank_line", " is a blank line.", "Delete the line.")
        return text

    def _row(self, text: str) -> dict[str, object]:
        advice = "Write one complete JSON object a line."
        try:
            row = json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            self._unparsable("too_deep", "line is nested too deeply", advice)
        except ValueError as error:
            self._unparsable("invalid_json", f"line contains invalid json: {error}", advice)
        if not isinstance(row, dict):
            what = f" is not a dictionary (HINT: line starts with: {_shown(text[:8])})."
            self._stop("not_a_dictionary", what, 'Each line is {"messages": [...]}.')
        return row

    def _messages(self, row: dict[str, object]) -> list[Message]:
        if "messages" not in row:
            self._without_messages(row)
        self._keys(row)
        entries = row["messages"]
        if not isinstance(entries, list) or not entries:
            what = f": 'messages' must be a list of at least one message, not {_shown(entries)}."
            self._stop("invalid_messages", what, "List the system, user and assistant messages.")
        read = [self._message(place, entry) for place, entry in enumerate(entries)]
        messages = [message for message in read if message is not None]
        if len(messages) == len(read):
            self._ending(messages)
        return messages

    def _without_messages(self, row: dict[str, object]) -> NoReturn:
        if _PREFERENCE_KEYS & row.keys():
            what = " is in the format of preference learning (dpo), which isn't built here."
            advice = "Write the input's messages and the preferred reply as one 'messages' list."
            self._stop("preference_format", what, advice)
        advice = 'Add "messages": [...].'
        if {"prompt", "completion"} & row.keys():
            advice = "Make the prompt the user's message, and the completion the assistant's."
        self._stop("missing_messages", " is missing key 'messages'", advice)

    def _keys(self, row: dict[str, object]) -> None:
        for key in (key for key in row if key != "messages"):
            advice = _NO_TOOLS if key in _TOOL_KEYS else 'A line has the one key "messages".'
            code = "tools_not_supported" if key in _TOOL_KEYS else "extra_key"
            self._note(code, f" contains an extra {_shown(key)}.", advice)

    def _ending(self, messages: list[Message]) -> None:
        if all(message.role != "assistant" for message in messages):
            what = " must have at least one message from the assistant."
            self._note("no_assistant", what, "Add the reply to be learned.")
        elif messages[-1].role != "assistant":
            what = f": the last message must be the assistant's, not the {messages[-1].role}'s."
            self._note("last_not_assistant", what, "End with the reply to be learned.")

    def _message(self, place: int, entry: object) -> Message | None:
        where = f", message {place + 1}"
        if not isinstance(entry, dict):
            what = f"{where} must be a dictionary, not {_shown(entry)}."
            self._note("invalid_message", what, 'Write {"role": ..., "content": ...}.')
            return None
        role = self._role(where, entry)
        content = self._content(where, entry)
        weight = self._weight(where, entry, role)
        self._message_keys(where, entry)
        return None if role is None or content is None else Message(role, content, weight)

    def _role(self, where: str, entry: dict[str, object]) -> str | None:
        role = entry.get("role")
        if role in ROLES:
            return str(role)
        advice = f"Use one of {', '.join(ROLES)}."
        if "role" not in entry:
            self._note("missing_role", f"{where} Discriminator 'role' is missing in value", advice)
        elif role in _TOOL_ROLES:
            self._note("tools_not_supported", f"{where} has the role {_shown(role)}.", _NO_TOOLS)
        else:
            self._note("unknown_role", f"{where} has the unknown role {_shown(role)}.", advice)
        return None

    def _content(self, where: str, entry: dict[str, object]) -> str | None:
        content = entry.get("content")
        if isinstance(content, list):
            content = _joined(content)
        if not isinstance(content, str):
            what = f"{where} needs a 'content' of text, not {_shown(entry.get('content'))}."
            self._note("invalid_content", what, 'A string, or a list of {"type": "text"} parts.')
            return None
        if not _encodable(content):
            what = f"{where} holds half a character (a lone surrogate)."
            self._note("lone_surrogate", what, r"Write both halves of the \ud83d\ude00 pair.")
            return None
        if entry.get("role") == "assistant" and not content.strip():
            what = f"{where} is an empty reply."
            self._note("empty_reply", what, "Write what should be said.", "warning")
        return content

    def _weight(self, where: str, entry: dict[str, object], role: str | None) -> int | None:
        weight = entry.get("weight")
        if weight is None:
            return None
        if role != "assistant":
            advice = "Only assistant messages have a weight."
            self._note("extra_key", ' contains an extra "weight".', advice)
        elif type(weight) is not int or weight not in (0, 1):
            what = f"{where} has the weight {_shown(weight)}; it must be 0 or 1."
            self._note("invalid_weight", what, "0 keeps a reply out of the training, 1 is normal.")
        return weight if type(weight) is int else None

    def _message_keys(self, where: str, entry: dict[str, object]) -> None:
        for key in entry:
            if key in ("role", "content", "weight"):
                continue
            if key == "name":
                what = f"{where} has a 'name', which is not shown to the model."
                self._note("name_ignored", what, "Write it into the content if needed.", "warning")
            elif key in _TOOL_MESSAGE_KEYS:
                self._note("tools_not_supported", f"{where} has {_shown(key)}.", _NO_TOOLS)
            else:
                what = f"{where} contains an extra {_shown(key)}."
                self._note("extra_key", what, "A message has role and content.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _joined(parts: list[object]) -> str | None:
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    whole = parts and len(texts) == len(parts)
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if whole and len(strings) == len(texts) else None


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """A found value in ASCII and in brief: safe on every screen and in every log."""
    if value is None or isinstance(value, (str, int, float)):
        text = json.dumps(value)
        return text if len(text) <= 40 else f"{text[:36]}..."
    return f"an empty {type(value).__name__}" if not value else f"a {type(value).__name__}"
