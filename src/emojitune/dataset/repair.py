"""A file with issues -> the lines of a repaired copy, and the changes made.

Repairs what has one right answer, drops lines that are unusable or duplicates, and keeps everything
else as it is. Writes no file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from emojitune.dataset.checks.duplicates import PromptKey, prompt_key
from emojitune.dataset.checks.labels import LabelMatcher, parenthesized_labels
from emojitune.dataset.checks.text import GARBLED, INVISIBLE
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.formats import called_functions
from emojitune.dataset.parse import ROW_KEYS, parse_line, read_lines
from emojitune.dataset.parse_tools import RESULT_ROLES, TOOL_MESSAGE_KEYS
from emojitune.dataset.rules import Issue, main_issue, preview
from emojitune.dataset.secrets import redact
from emojitune.dataset.strict_json import BYTE_ORDER_MARK, DuplicateKeys, dump_row, parse_row
from emojitune.dataset.validation import DatasetReport
from emojitune.labels import is_label

_MESSAGE_KEYS = {"role", "content", "weight", "name"} | TOOL_MESSAGE_KEYS
_UNTRAINED_ROLES = ("user", "system", "developer", *RESULT_ROLES)


@dataclass(frozen=True, slots=True)
class Change:
    """One change: the line of the original, the code of the issue, and what was done."""

    line: int
    code: str
    what: str


@dataclass(frozen=True, slots=True)
class RepairedFile:
    """The lines of the copy, without line ends, and all changes in the order of the original."""

    lines: tuple[str, ...]
    changes: tuple[Change, ...]


def repair(report: DatasetReport) -> RepairedFile:
    """Repair the file that `report` is about."""
    matcher = LabelMatcher(parenthesized_labels(report.examples))
    first_lines: dict[tuple[PromptKey, str], int] = {}
    kept: list[str] = []
    changes: list[Change] = []
    for number, raw in read_lines(report.path):
        line = _LineRepair(number, matcher, changes)
        repaired = line.repair(raw)
        if repaired is None:
            continue
        text, example = repaired
        first = first_lines.setdefault((prompt_key(example), example.reply), number)
        if first == number:
            kept.append(text)
        else:
            line.record("duplicate_example", "left out: it says the same as an earlier line")
    return RepairedFile(tuple(kept), tuple(changes))


@dataclass(frozen=True, slots=True)
class _LineRepair:
    number: int
    matcher: LabelMatcher
    changes: list[Change]

    def record(self, code: str, what: str) -> None:
        self.changes.append(Change(self.number, code, what))

    def repair(self, raw: bytes) -> tuple[str, TrainingExample] | None:
        """Repair a line: its new text and its example; None if it is dropped."""
        before = len(self.changes)
        try:
            text = raw.decode("utf-8")
            if text.startswith(BYTE_ORDER_MARK):
                text = text.lstrip(BYTE_ORDER_MARK)
                raw = text.encode()
                self.record("byte_order_mark", "took out the byte order mark")
            row = parse_row(text)
        except (ValueError, RecursionError):
            self._drop(raw)
            return None
        if isinstance(row, dict):
            self._repair_row(row)
        if len(self.changes) > before:
            text, raw = dump_row(row)
        example = parse_line(self.number, raw, [])
        if example is None:
            self._drop(raw)
            return None
        return text, example

    def _drop(self, raw: bytes) -> None:
        issues: list[Issue] = []
        parse_line(self.number, raw, issues)
        self.record(main_issue(issues).code, "left out")

    def _repair_row(self, row: dict[str, Any]) -> None:
        messages = row.get("messages")
        if not isinstance(messages, list):
            return
        self._repair_keys(row, ROW_KEYS)
        for message in messages:
            if isinstance(message, dict):
                self._repair_keys(message, _MESSAGE_KEYS)
                self._repair_weight(message)
                self._repair_content(message)
                self._repair_arguments(message)
        roles = [message.get("role") for message in messages if isinstance(message, dict)]
        while "assistant" in roles and roles[-1] in _UNTRAINED_ROLES:
            roles.pop()
            messages.pop()
            self.record("last_not_assistant", "took out the last message: nobody replies to it")

    def _repair_keys(self, fields: dict[str, Any], allowed: set[str]) -> None:
        if isinstance(fields, DuplicateKeys):
            self.record("duplicate_key", "kept the last value of a key that stands there twice")
        for key in sorted(fields.keys() - allowed):
            del fields[key]
            self.record("extra_key", f"took out {preview(key)}")

    def _repair_weight(self, message: dict[str, Any]) -> None:
        weight = message.get("weight")
        if weight is None:
            return
        if message.get("role") != "assistant":
            del message["weight"]
            self.record("extra_key", "took out the weight of a message that is no reply")
        elif type(weight) is not int and weight in (0, 1, "0", "1"):
            message["weight"] = int(weight)
            self.record("invalid_weight", f"wrote {int(weight)} for {preview(weight)}")

    def _repair_content(self, message: dict[str, Any]) -> None:
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    part["text"] = self._repair_text(part["text"])
        elif isinstance(content, str):
            content = self._repair_text(content)
            is_reply = message.get("role") == "assistant"
            message["content"] = self._repair_reply(content) if is_reply else content

    def _repair_arguments(self, message: dict[str, Any]) -> None:
        for function in called_functions(message):
            if isinstance(function.get("arguments"), str):
                function["arguments"] = self._repair_text(function["arguments"])

    def _repair_text(self, text: str) -> str:
        before = None
        while text != before:  # one repair may uncover what another one finds
            before = text
            for code, what, repaired in _TEXT_REPAIRS:
                new = repaired(text)
                if new != text:
                    self.record(code, what)
                text = new
        return text

    def _repair_reply(self, reply: str) -> str:
        stripped = reply.strip()
        if stripped and stripped != reply:
            self.record("padded_reply", "took white space off the ends of a reply")
        label = self.matcher.match(stripped)
        if label and not is_label(stripped):
            self.record("off_style", f"wrote {label} for {preview(stripped)}")
            return label
        return stripped or reply


def _decode_garbled(text: str) -> str:
    """Undo the decoding of UTF-8 as Windows-1252; text that was decoded well stays."""
    if not GARBLED.search(text):
        return text
    try:
        return text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text


_TEXT_REPAIRS: tuple[tuple[str, str, Callable[[str], str]], ...] = (
    ("garbled_text", "read text in its right encoding", _decode_garbled),
    ("invisible_character", "took out invisible characters", lambda text: INVISIBLE.sub("", text)),
    ("secret", "put a placeholder for a secret or an e-mail address", redact),
)
