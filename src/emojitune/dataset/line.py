"""One line of a file -> its training example, and every issue of its form.

Sentences follow OpenAI's, so that a job's error reads the same here and there. Looks at one line
alone, and at its form: what its text says is `content.py`'s business.
"""

import json
from dataclasses import dataclass
from typing import NoReturn, get_args

from emojitune.dataset.example import Message, Role, TrainingExample
from emojitune.dataset.issues import Issue, issue, shown

ROLES: tuple[str, ...] = get_args(Role)
TOOL_KEYS = {"tools", "parallel_tool_calls", "functions"}
TOOL_MESSAGE_KEYS = {"tool_calls", "tool_call_id", "function_call"}
_TOOL_ROLES = ("tool", "function")
_PREFERENCE_KEYS = {
    "preferred_output",
    "non_preferred_output",
    "preferred_completion",
    "non_preferred_completion",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def parse_line(number: int, raw: bytes, issues: list[Issue]) -> TrainingExample | None:
    """The example of a line without its line end; None, and why in `issues`, if it is unusable."""
    return _Line(number, issues).parse(raw)


def read_object(text: str) -> object:
    """JSON as it is defined: no NaN, and objects that repeat a key are known for it.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    return _DECODER.decode(text)


class RepeatedKeys(dict[str, object]):
    """An object that names a key twice. The last one counts, as with every reader of JSON."""


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
        sound = all(issue.severity != "error" for issue in self.issues[before:])
        return TrainingExample(tuple(messages)) if sound else None

    def _note(self, code: str, what: str, advice: str | None = None) -> None:
        self.issues.append(issue(self.number, code, f"Example {self.number}{what}", advice))

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
            advice = "The file is UTF-16: save it as UTF-8." if raw.startswith(_UTF_16) else None
            self._unparsable("not_utf8", reason, advice)
        if self.number == 1 and text.startswith("\ufeff"):
            self._note("byte_order_mark", " starts with a byte order mark.")
            text = text[1:]
        if not text.strip():
            self._stop("blank_line", " is a blank line.")
        return text

    def _row(self, text: str) -> dict[str, object]:
        try:
            row = read_object(text)
        except RecursionError:
            self._unparsable("too_deep", "line is nested too deeply")
        except ValueError as error:
            self._unparsable("invalid_json", f"line contains invalid json: {error}")
        if not isinstance(row, dict):
            what = f" is not a dictionary (HINT: line starts with: {shown(text[:8])})."
            self._stop("not_a_dictionary", what)
        return row

    def _messages(self, row: dict[str, object]) -> list[Message]:
        if "messages" not in row:
            self._without_messages(row)
        self._keys(row)
        entries = row["messages"]
        if not isinstance(entries, list) or not entries:
            what = f": 'messages' must be a list of at least one message, not {shown(entries)}."
            self._stop("invalid_messages", what)
        read = [self._message(place, entry) for place, entry in enumerate(entries)]
        messages = [message for message in read if message is not None]
        if len(messages) == len(read):
            self._ending(messages)
        return messages

    def _without_messages(self, row: dict[str, object]) -> NoReturn:
        if _PREFERENCE_KEYS & row.keys():
            what = " is in the format of preference learning (dpo), which isn't built here."
            self._stop("preference_format", what)
        advice = None
        if {"prompt", "completion"} & row.keys():
            advice = "Make the prompt the user's message, and the completion the assistant's."
        self._stop("missing_messages", " is missing key 'messages'", advice)

    def _keys(self, row: dict[str, object]) -> None:
        if isinstance(row, RepeatedKeys):
            self._note("duplicate_key", " names a key twice.")
        for key in (key for key in row if key != "messages"):
            code = "tools_not_supported" if key in TOOL_KEYS else "extra_key"
            self._note(code, f" contains an extra {shown(key)}.")

    def _ending(self, messages: list[Message]) -> None:
        if all(message.role != "assistant" for message in messages):
            self._note("no_assistant", " must have at least one message from the assistant.")
        elif messages[-1].role != "assistant":
            what = f": the last message must be the assistant's, not the {messages[-1].role}'s."
            self._note("last_not_assistant", what)

    def _message(self, place: int, entry: object) -> Message | None:
        where = f", message {place + 1}"
        if not isinstance(entry, dict):
            self._note("invalid_message", f"{where} must be a dictionary, not {shown(entry)}.")
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
        if "role" not in entry:
            self._note("missing_role", f"{where} Discriminator 'role' is missing in value")
        elif role in _TOOL_ROLES:
            self._note("tools_not_supported", f"{where} has the role {shown(role)}.")
        else:
            self._note("unknown_role", f"{where} has the unknown role {shown(role)}.")
        return None

    def _content(self, where: str, entry: dict[str, object]) -> str | None:
        content = entry.get("content")
        if content is None and TOOL_MESSAGE_KEYS & entry.keys():
            return None  # as it is where a tool is called, which is told of
        if isinstance(content, list):
            content = _joined(content)
        if not isinstance(content, str):
            what = f"{where} needs a 'content' of text, not {shown(entry.get('content'))}."
            self._note("invalid_content", what)
            return None
        if not encodable(content):
            self._note("lone_surrogate", f"{where} holds half a character (a lone surrogate).")
            return None
        if entry.get("role") == "assistant" and not content.strip():
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
            what = f"{where} has the weight {shown(weight)}; it must be 0 or 1."
            self._note("invalid_weight", what)
        return weight if type(weight) is int else None

    def _message_keys(self, where: str, entry: dict[str, object]) -> None:
        if isinstance(entry, RepeatedKeys):
            self._note("duplicate_key", f"{where} names a key twice.")
        for key in entry:
            if key in ("role", "content", "weight"):
                continue
            if key == "name":
                what = f"{where} has a 'name', which is not shown to the model."
                self._note("name_ignored", what)
            elif key in TOOL_MESSAGE_KEYS:
                self._note("tools_not_supported", f"{where} has {shown(key)}.")
            else:
                what = f"{where} contains an extra {shown(key)}."
                self._note("extra_key", what, "A message has role and content.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(found)


# One for all lines: json.loads would make one a line.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object)


def _joined(parts: list[object]) -> str | None:
    texts = [p.get("text") for p in parts if isinstance(p, dict) and p.get("type") == "text"]
    whole = parts and len(texts) == len(parts)
    strings = [text for text in texts if isinstance(text, str)]
    return "".join(strings) if whole and len(strings) == len(texts) else None


def encodable(text: str) -> bool:
    """Whether it has no half characters, which nothing can write down."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
