"""One line of a file -> its training example, and every issue of its form.

Messages follow OpenAI's, so that a job's error reads the same in both places. Checks the form of
one line: `checks/` looks at the text, and compares examples.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

from emojitune.dataset.example import Message, Role, TrainingExample
from emojitune.dataset.formats import PREFERENCE_KEYS, detect_format
from emojitune.dataset.parse_tools import (
    CALL_KEYS,
    RESULT_ROLES,
    TOOL_ROW_KEYS,
    called_names,
    check_order,
    parse_calls,
    parse_tools,
    tool_keys,
)
from emojitune.dataset.rules import Issue, make_issue, preview
from emojitune.dataset.strict_json import BYTE_ORDER_MARK, DuplicateKeys, is_encodable, parse_row
from emojitune.dataset.tool_format import reply_text, result_text, tools_prompt

ROLES: tuple[str, ...] = (*get_args(Role), *RESULT_ROLES)
ROW_KEYS = {"messages"} | TOOL_ROW_KEYS
_MESSAGE_KEYS = {"role", "content", "weight"}


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with its number from 1, without the line end."""
    # Bytes are split at \n only: U+2028 and the like are ordinary characters of a JSON string.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            yield number, raw.removesuffix(b"\n").removesuffix(b"\r")


def parse_line(number: int, raw: bytes, issues: list[Issue]) -> TrainingExample | None:
    """Parse a line, given without its line end; adds its issues, and returns None if unusable."""
    return _LineParser(number, issues).parse(raw)


class _UnparsableError(Exception):
    """No further check of the line makes sense; its issue has been reported."""


@dataclass(frozen=True, slots=True)
class _LineParser:
    """The checks of one line: each reports its issue, and later ones run where they can."""

    number: int
    issues: list[Issue]

    def parse(self, raw: bytes) -> TrainingExample | None:
        before = len(self.issues)
        try:
            row = self._row(self._text(raw))
            messages = self._messages(row)
            tools = parse_tools(row, self._report)
        except _UnparsableError:
            return None
        except RecursionError:  # just shallow enough to be parsed, but not to be serialized
            self._report("too_deep", ": its tools are nested too deeply.")
            return None
        if any(issue.severity == "error" for issue in self.issues[before:]):
            return None
        listed = {tool.name for tool in tools}
        for name in sorted(called_names(row["messages"]) - listed):
            problem = f" calls the tool {preview(name)}, and does not list it."
            self._report("unlisted_tool", problem)
        return TrainingExample(tuple(messages), tools_prompt(tools) if tools else "")

    def _report(self, code: str, problem: str, advice: str | None = None) -> None:
        message = f"Example {self.number}{problem}"
        self.issues.append(make_issue(self.number, code, message, advice))

    def _stop(self, code: str, problem: str, advice: str | None = None) -> NoReturn:
        self._report(code, problem, advice)
        raise _UnparsableError

    def _stop_parsing(self, code: str, reason: str, advice: str | None = None) -> NoReturn:
        self._stop(code, f" cannot be parsed. Error: {reason} (line {self.number})", advice)

    def _text(self, raw: bytes) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"line is not UTF-8: byte {raw[error.start]:#04x} at position {error.start}"
            self._stop_parsing("not_utf8", reason)
        if self.number == 1 and text.startswith(BYTE_ORDER_MARK):
            self._report("byte_order_mark", " starts with a byte order mark.")
            text = text.removeprefix(BYTE_ORDER_MARK)
        if not text.strip():
            self._stop("blank_line", " is a blank line.")
        if text.startswith(BYTE_ORDER_MARK):
            reason = "line begins with a byte order mark, which belongs at the start of a file only"
            self._stop_parsing("invalid_json", reason, "Take it out (--fix does).")
        return text

    def _row(self, text: str) -> dict[str, Any]:
        try:
            row = parse_row(text)
        except RecursionError:
            self._stop_parsing("too_deep", "line is nested too deeply")
        except ValueError as error:
            self._stop_parsing("invalid_json", f"line contains invalid json: {error}")
        if not isinstance(row, dict):
            problem = f" is not a dictionary (HINT: line starts with: {preview(text[:8])})."
            self._stop("not_a_dictionary", problem)
        return row

    def _messages(self, row: dict[str, Any]) -> list[Message]:
        if "messages" not in row and PREFERENCE_KEYS & row.keys():
            problem = " is in the format of preference learning (dpo), which isn't built here."
            self._stop("preference_format", problem)
        other = detect_format(row)
        if other is not None:
            missing = "" if "messages" in row else " is missing key 'messages': it"
            self._stop("other_format", f"{missing} is in another format, {other}")
        if "messages" not in row:
            self._stop("missing_messages", " is missing key 'messages'")
        self._check_keys(row)
        entries = row["messages"]
        if not isinstance(entries, list) or not entries:
            problem = (
                f": 'messages' must be a list of at least one message, not {preview(entries)}."
            )
            self._stop("invalid_messages", problem)
        read = [self._message(place, entry) for place, entry in enumerate(entries)]
        messages = [message for message in read if message is not None]
        if len(messages) == len(read):
            self._check_ending([entry["role"] for entry in entries])
            check_order(entries, self._report)
        return messages

    def _check_keys(self, row: dict[str, object]) -> None:
        if isinstance(row, DuplicateKeys):
            self._report("duplicate_key", " names a key twice.")
        for key in (key for key in row if key not in ROW_KEYS):
            self._report("extra_key", f" contains an extra {preview(key)}.")

    def _check_ending(self, roles: list[str]) -> None:
        if "assistant" not in roles:
            self._report("no_assistant", " must have at least one message from the assistant.")
        elif roles[-1] != "assistant":
            problem = f": the last message must be the assistant's, not the {roles[-1]}'s."
            self._report("last_not_assistant", problem)

    def _message(self, place: int, entry: object) -> Message | None:
        where = f", message {place + 1}"
        if not isinstance(entry, dict):
            self._report("invalid_message", f"{where} must be a dictionary, not {preview(entry)}.")
            return None
        role = self._role(where, entry)
        calls = parse_calls(entry, where, self._report) if role == "assistant" else []
        content = self._content(where, entry)
        weight = self._weight(where, entry, role)
        self._check_message_keys(where, entry)
        if role is None or content is None or calls is None:
            return None
        if role in RESULT_ROLES:
            return Message("user", result_text(content))
        if content and calls:
            self._report("words_beside_call", f"{where} has words and a call of a tool.")
        return Message(role, reply_text(content, calls), weight)

    def _role(self, where: str, entry: dict[str, object]) -> str | None:
        role = entry.get("role")
        if role in ROLES:
            return str(role)
        if "role" not in entry:
            self._report("missing_role", f"{where} Discriminator 'role' is missing in value")
        else:
            self._report("unknown_role", f"{where} has the unknown role {preview(role)}.")
        return None

    def _content(self, where: str, entry: dict[str, object]) -> str | None:
        content, role = entry.get("content"), entry.get("role")
        calls = role == "assistant" and any(entry.get(key) is not None for key in CALL_KEYS)
        if content is None and (calls or role == "function"):
            return ""
        if isinstance(content, list):
            content = _join_parts(content)
        if not isinstance(content, str):
            problem = f"{where} needs a 'content' of text, not {preview(entry.get('content'))}."
            self._report("invalid_content", problem)
            return None
        if not is_encodable(content):
            self._report("lone_surrogate", f"{where} holds half a character (a lone surrogate).")
            return None
        if role == "assistant" and not (content.strip() or calls):
            self._report("empty_reply", f"{where} is an empty reply.")
        return content

    def _weight(self, where: str, entry: dict[str, object], role: str | None) -> int | None:
        weight = entry.get("weight")
        if weight is None:
            return None
        if role != "assistant":
            advice = "Only assistant messages have a weight."
            self._report("extra_key", ' contains an extra "weight".', advice)
        elif type(weight) is not int or weight not in (0, 1):
            problem = f"{where} has the weight {preview(weight)}; it must be 0 or 1."
            self._report("invalid_weight", problem)
        return weight if type(weight) is int else None

    def _check_message_keys(self, where: str, entry: dict[str, object]) -> None:
        if isinstance(entry, DuplicateKeys):
            self._report("duplicate_key", f"{where} names a key twice.")
        allowed = _MESSAGE_KEYS | tool_keys(entry.get("role"))
        for key in (key for key in entry if key not in allowed):
            if key == "name":
                problem = f"{where} has a 'name', which is not shown to the model."
                self._report("name_ignored", problem)
            else:
                problem = f"{where} contains an extra {preview(key)}."
                self._report("extra_key", problem, _extra_key_advice(key))


def _extra_key_advice(key: str) -> str:
    if key in CALL_KEYS:
        return "Only assistant messages call tools."
    if key == "tool_call_id":
        return "Only messages with the role tool answer a call."
    return "A message has role and content."


def _join_parts(parts: list[object]) -> str | None:
    """The text of content parts; None where there are none, or one is not text."""
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if parts and len(strings) == len(parts) else None
