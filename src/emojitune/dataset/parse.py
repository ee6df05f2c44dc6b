"""One line of a file -> its training example, and every issue of its form.

Sentences follow OpenAI's, so that a job's error reads the same here and there. Looks at one line
alone, and at its form: what its text says is `content.py`'s business.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args

from emojitune.dataset import parse_tools
from emojitune.dataset.example import Message, Role, TrainingExample
from emojitune.dataset.formats import PREFERENCE_KEYS, detect_format
from emojitune.dataset.rules import Issue, make_issue, preview
from emojitune.dataset.strict_json import BYTE_ORDER_MARK, DuplicateKeys, is_encodable, parse_row
from emojitune.dataset.tool_format import reply_text, result_text, tools_prompt

ROLES: tuple[str, ...] = (*get_args(Role), *parse_tools.ROLES)
_KEYS = {"messages"} | parse_tools.KEYS
_MESSAGE_KEYS = {"role", "content", "weight"}


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Each line of a file with its number from 1, without its end."""
    # Bytes split at \n only: U+2028 and its kin are ordinary characters of a JSON string.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            yield number, raw.removesuffix(b"\n").removesuffix(b"\r")


def parse_line(number: int, raw: bytes, issues: list[Issue]) -> TrainingExample | None:
    """The example of a line without its line end; None, and why in `issues`, if it is unusable."""
    return _Line(number, issues).parse(raw)


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
            row = self._row(self._text(raw))
            messages = self._messages(row)
            tools = parse_tools.tools_of(row, self._note)
        except _Broken:
            return None
        except RecursionError:  # what could just be read, and not be written as text
            self._note("too_deep", ": its tools are nested too deeply.")
            return None
        if any(issue.severity == "error" for issue in self.issues[before:]):
            return None
        known = {tool.name for tool in tools}
        for name in sorted(parse_tools.called_names(row["messages"]) - known):
            self._note("unlisted_tool", f" calls the tool {preview(name)}, and does not list it.")
        return TrainingExample(tuple(messages), tools_prompt(tools) if tools else "")

    def _note(self, code: str, what: str, advice: str | None = None) -> None:
        self.issues.append(make_issue(self.number, code, f"Example {self.number}{what}", advice))

    def _stop(self, code: str, what: str, advice: str | None = None) -> NoReturn:
        self._note(code, what, advice)
        raise _Broken

    def _unparsable(self, code: str, reason: str, advice: str | None = None) -> NoReturn:
        self._stop(code, f" cannot be parsed. Error: {reason} (line {self.number})", advice)

    def _text(self, raw: bytes) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"line is not UTF-8: byte {raw[error.start]:#04x} at position {error.start}"
            self._unparsable("not_utf8", reason)
        if self.number == 1 and text.startswith(BYTE_ORDER_MARK):
            self._note("byte_order_mark", " starts with a byte order mark.")
            text = text.removeprefix(BYTE_ORDER_MARK)
        if not text.strip():
            self._stop("blank_line", " is a blank line.")
        if text.startswith(BYTE_ORDER_MARK):
            reason = "line begins with a byte order mark, which belongs at the start of a file only"
            self._unparsable("invalid_json", reason, "Take it out (--fix does).")
        return text

    def _row(self, text: str) -> dict[str, Any]:
        try:
            row = parse_row(text)
        except RecursionError:
            self._unparsable("too_deep", "line is nested too deeply")
        except ValueError as error:
            self._unparsable("invalid_json", f"line contains invalid json: {error}")
        if not isinstance(row, dict):
            what = f" is not a dictionary (HINT: line starts with: {preview(text[:8])})."
            self._stop("not_a_dictionary", what)
        return row

    def _messages(self, row: dict[str, Any]) -> list[Message]:
        if "messages" not in row and PREFERENCE_KEYS & row.keys():
            what = " is in the format of preference learning (dpo), which isn't built here."
            self._stop("preference_format", what)
        other = detect_format(row)
        if other is not None:
            missing = "" if "messages" in row else " is missing key 'messages': it"
            self._stop("other_format", f"{missing} is in another format, {other}")
        if "messages" not in row:
            self._stop("missing_messages", " is missing key 'messages'")
        self._keys(row)
        entries = row["messages"]
        if not isinstance(entries, list) or not entries:
            what = f": 'messages' must be a list of at least one message, not {preview(entries)}."
            self._stop("invalid_messages", what)
        read = [self._message(place, entry) for place, entry in enumerate(entries)]
        messages = [message for message in read if message is not None]
        if len(messages) == len(read):
            self._ending([entry["role"] for entry in entries])
            parse_tools.check_order(entries, self._note)
        return messages

    def _keys(self, row: dict[str, object]) -> None:
        if isinstance(row, DuplicateKeys):
            self._note("duplicate_key", " names a key twice.")
        for key in (key for key in row if key not in _KEYS):
            self._note("extra_key", f" contains an extra {preview(key)}.")

    def _ending(self, roles: list[str]) -> None:
        if "assistant" not in roles:
            self._note("no_assistant", " must have at least one message from the assistant.")
        elif roles[-1] != "assistant":
            what = f": the last message must be the assistant's, not the {roles[-1]}'s."
            self._note("last_not_assistant", what)

    def _message(self, place: int, entry: object) -> Message | None:
        where = f", message {place + 1}"
        if not isinstance(entry, dict):
            self._note("invalid_message", f"{where} must be a dictionary, not {preview(entry)}.")
            return None
        role = self._role(where, entry)
        calls = parse_tools.calls_of(entry, where, self._note) if role == "assistant" else []
        content = self._content(where, entry)
        weight = self._weight(where, entry, role)
        self._message_keys(where, entry)
        if role is None or content is None or calls is None:
            return None
        if role in parse_tools.ROLES:
            return Message("user", result_text(content))
        if content and calls:
            self._note("words_beside_call", f"{where} has words and a call of a tool.")
        return Message(role, reply_text(content, calls), weight)

    def _role(self, where: str, entry: dict[str, object]) -> str | None:
        role = entry.get("role")
        if role in ROLES:
            return str(role)
        if "role" not in entry:
            self._note("missing_role", f"{where} Discriminator 'role' is missing in value")
        else:
            self._note("unknown_role", f"{where} has the unknown role {preview(role)}.")
        return None

    def _content(self, where: str, entry: dict[str, object]) -> str | None:
        content, role = entry.get("content"), entry.get("role")
        calls = role == "assistant" and any(
            entry.get(key) is not None for key in parse_tools.CALL_KEYS
        )
        if content is None and (calls or role == "function"):
            return ""
        if isinstance(content, list):
            content = _joined(content)
        if not isinstance(content, str):
            what = f"{where} needs a 'content' of text, not {preview(entry.get('content'))}."
            self._note("invalid_content", what)
            return None
        if not is_encodable(content):
            self._note("lone_surrogate", f"{where} holds half a character (a lone surrogate).")
            return None
        if role == "assistant" and not (content.strip() or calls):
            self._note("empty_reply", f"{where} is an empty reply.")
        return content

    def _weight(self, where: str, entry: dict[str, object], role: str | None) -> int | None:
        weight = entry.get("weight")
        if weight is None:
            return None
        if role != "assistant":
            advice = "Only assistant messages have a weight."
            self._note("extra_key", ' contains an extra "weight".', advice)
        elif type(weight) is not int or weight not in (0, 1):
            what = f"{where} has the weight {preview(weight)}; it must be 0 or 1."
            self._note("invalid_weight", what)
        return weight if type(weight) is int else None

    def _message_keys(self, where: str, entry: dict[str, object]) -> None:
        if isinstance(entry, DuplicateKeys):
            self._note("duplicate_key", f"{where} names a key twice.")
        known = _MESSAGE_KEYS | parse_tools.keys_of(entry.get("role"))
        for key in (key for key in entry if key not in known):
            if key == "name":
                what = f"{where} has a 'name', which is not shown to the model."
                self._note("name_ignored", what)
            else:
                what = f"{where} contains an extra {preview(key)}."
                self._note("extra_key", what, _advice(key))


def _advice(key: str) -> str:
    if key in parse_tools.CALL_KEYS:
        return "Only assistant messages call tools."
    if key == "tool_call_id":
        return "Only messages with the role tool answer a call."
    return "A message has role and content."


def _joined(parts: list[object]) -> str | None:
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    whole = parts and len(texts) == len(parts)
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if whole and len(strings) == len(texts) else None
