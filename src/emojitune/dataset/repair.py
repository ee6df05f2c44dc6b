"""A file with faults -> the lines of a cleaned copy, and what was changed.

Mends what has one right answer, leaves out what cannot be used or says the same again, and leaves
everything else as it is. Writes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.checks.duplicates import prompt_key
from emojitune.dataset.checks.labels import LabelMatcher, parenthesized_labels
from emojitune.dataset.checks.text import GARBLED, INVISIBLE
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.formats import called_functions
from emojitune.dataset.parse import parse_line, read_lines
from emojitune.dataset.parse_tools import KEYS, MESSAGE_KEYS, ROLES
from emojitune.dataset.rules import Issue, main_issue, preview
from emojitune.dataset.secrets import redact
from emojitune.dataset.strict_json import BYTE_ORDER_MARK, DuplicateKeys, dump_row, parse_row
from emojitune.dataset.validation import DatasetReport
from emojitune.labels import is_label

_ROW_KEYS = {"messages"} | KEYS
_MESSAGE_KEYS = {"role", "content", "weight", "name"} | MESSAGE_KEYS
_UNLEARNED = ("user", "system", "developer", *ROLES)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is other in the copy: the line of the original, the code of its issue."""

    line: int
    code: str
    what: str


@dataclass(frozen=True, slots=True)
class RepairedFile:
    """The lines of the copy, without their ends, and all changes in the order of the original."""

    lines: tuple[str, ...]
    changes: tuple[Change, ...]


def repair(report: DatasetReport) -> RepairedFile:
    """The cleaned copy of the file that `report` is about."""
    meant = LabelMatcher(parenthesized_labels(report.examples))
    said: dict[tuple[object, str], int] = {}
    kept: list[str] = []
    changes: list[Change] = []
    for number, raw in read_lines(report.path):
        line = _Line(number, meant, changes)
        repaired = line.repair(raw)
        if repaired is None:
            continue
        text, example = repaired
        earlier = said.setdefault((prompt_key(example), example.reply), number)
        if earlier == number:
            kept.append(text)
        else:
            line.changed("duplicate_example", "left out: it says the same as an earlier line")
    return RepairedFile(tuple(kept), tuple(changes))


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    meant: LabelMatcher
    changes: list[Change]

    def changed(self, code: str, what: str) -> None:
        self.changes.append(Change(self.number, code, what))

    def repair(self, raw: bytes) -> tuple[str, TrainingExample] | None:
        """The line's new text and its example; None when it is left out."""
        before = len(self.changes)
        try:
            text = raw.decode("utf-8")
            if text.startswith(BYTE_ORDER_MARK):
                text = text.lstrip(BYTE_ORDER_MARK)
                raw = text.encode()
                self.changed("byte_order_mark", "took out the byte order mark")
            row = parse_row(text)
        except (ValueError, RecursionError):
            self._leave_out(raw)
            return None
        if isinstance(row, dict):
            self._row(row)
        if len(self.changes) > before:
            text, raw = dump_row(row)
        example = parse_line(self.number, raw, [])
        if example is None:
            self._leave_out(raw)
            return None
        return text, example

    def _leave_out(self, raw: bytes) -> None:
        issues: list[Issue] = []
        parse_line(self.number, raw, issues)
        self.changed(main_issue(issues).code, "left out")

    def _row(self, row: dict[str, Any]) -> None:
        messages = row.get("messages")
        if not isinstance(messages, list):
            return
        self._keys(row, _ROW_KEYS)
        for message in messages:
            if isinstance(message, dict):
                self._keys(message, _MESSAGE_KEYS)
                self._weight(message)
                self._content(message)
                self._arguments(message)
        roles = [message.get("role") for message in messages if isinstance(message, dict)]
        while "assistant" in roles and roles[-1] in _UNLEARNED:
            roles.pop()
            messages.pop()
            self.changed("last_not_assistant", "took out the last message: nobody replies to it")

    def _keys(self, found: dict[str, Any], known: set[str]) -> None:
        if isinstance(found, DuplicateKeys):
            self.changed("duplicate_key", "kept the last value of a key that stands there twice")
        for key in sorted(found.keys() - known):
            del found[key]
            self.changed("extra_key", f"took out {preview(key)}")

    def _weight(self, message: dict[str, Any]) -> None:
        weight = message.get("weight")
        if weight is None:
            return
        if message.get("role") != "assistant":
            del message["weight"]
            self.changed("extra_key", "took out the weight of a message that is no reply")
        elif type(weight) is not int and weight in (0, 1, "0", "1"):
            message["weight"] = int(weight)
            self.changed("invalid_weight", f"wrote {int(weight)} for {preview(weight)}")

    def _content(self, message: dict[str, Any]) -> None:
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    part["text"] = self._text(part["text"])
        elif isinstance(content, str):
            content = self._text(content)
            message["content"] = self._reply(content) if _is_reply(message) else content

    def _arguments(self, message: dict[str, Any]) -> None:
        for call in called_functions(message):
            if isinstance(call.get("arguments"), str):
                call["arguments"] = self._text(call["arguments"])

    def _text(self, text: str) -> str:
        before = None
        while text != before:  # what is taken out may have kept another fault from being seen
            before = text
            for code, what, repaired in _TEXT:
                new = repaired(text)
                if new != text:
                    self.changed(code, what)
                text = new
        return text

    def _reply(self, reply: str) -> str:
        stripped = reply.strip()
        if stripped and stripped != reply:
            self.changed("padded_reply", "took white space off the ends of a reply")
        label = self.meant.by(stripped)
        if label and not is_label(stripped):
            self.changed("off_style", f"wrote {label} for {preview(stripped)}")
            return label
        return stripped or reply


def _is_reply(message: dict[str, Any]) -> bool:
    return message.get("role") == "assistant"


def _ungarbled(text: str) -> str:
    """`text` as it was before its UTF-8 was read as Windows-1252; as it is, if that is not so."""
    if not GARBLED.search(text):
        return text
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


_TEXT: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("garbled_text", "read text in its right encoding", _ungarbled),
    ("invisible_character", "took out invisible characters", lambda text: INVISIBLE.sub("", text)),
    ("secret", "put a placeholder for a secret or an e-mail address", redact),
)
