"""The rules of a training file: the code, severity, meaning and advice of every issue.

`docs/training-file.md` shows RULES as a table. Knows no files and no examples.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from emojitune.dataset.secrets import redact

Severity = Literal["error", "warning", "note"]  # stops; stops with --strict; never stops

CONVERT_ADVICE = "Run `emojitune data convert FILE`: it makes chat lines of it."

_MAX_LINES = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one code. `advice` is the default for issues without advice of their own."""

    severity: Severity
    meaning: str
    advice: str


def _error(meaning: str, advice: str) -> Rule:
    return Rule("error", meaning, advice)


def _warning(meaning: str, advice: str) -> Rule:
    return Rule("warning", meaning, advice)


def _note(meaning: str, advice: str) -> Rule:
    return Rule("note", meaning, advice)


RULES: dict[str, Rule] = {
    # the file
    "invalid_training_file": _error(
        "The file is not there, cannot be read, or trains nothing.",
        "Give the path of a readable file, with a reply that is trained.",
    ),
    "invalid_n_examples": _error(
        "There are fewer than 10 examples (1 in a validation file).",
        "Add examples, one JSON object a line.",
    ),
    # a line
    "not_utf8": _error("The line, or all of the file, is not UTF-8.", "Save the file as UTF-8."),
    "byte_order_mark": _note(
        "The file starts with a byte order mark, which is ignored.",
        "Nothing has to be done (--fix takes it out).",
    ),
    "blank_line": _note(
        "The line is blank, and is ignored.", "Nothing has to be done (--fix takes it out)."
    ),
    "invalid_json": _error("The line is not JSON.", "Write one complete JSON object a line."),
    "too_deep": _error(
        "The line's JSON is nested too deeply.", "Write one complete JSON object a line."
    ),
    "not_a_dictionary": _error(
        "The line is JSON, but not an object.", 'Each line is {"messages": [...]}.'
    ),
    "missing_messages": _error("The line has no `messages`.", 'Add "messages": [...].'),
    "other_format": _error(
        "The line, or all of the file, is in another format than the chat's.",
        CONVERT_ADVICE,
    ),
    "preference_format": _error(
        "The line is in the format of preference learning (DPO).",
        "Write the input's messages and the preferred reply as one 'messages' list.",
    ),
    "extra_key": _error(
        "A key that is not allowed there.", 'A line has "messages", and "tools" if it has any.'
    ),
    "invalid_tools": _error(
        "`tools` is not a list of functions, or repeats one.",
        'Each is {"type": "function", "function": {"name": ..., "parameters": {...}}}.',
    ),
    # a message
    "invalid_messages": _error(
        "`messages` is not a list, or is empty.",
        "List the system, user and assistant messages.",
    ),
    "invalid_message": _error(
        "A message is not an object.", 'Write {"role": ..., "content": ...}.'
    ),
    "missing_role": _error(
        "A message has no role.", "Use one of system, developer, user, assistant, tool."
    ),
    "unknown_role": _error(
        "A role that does not exist.", "Use one of system, developer, user, assistant, tool."
    ),
    "invalid_content": _error(
        "The content is not text.", 'A string, or a list of {"type": "text"} parts.'
    ),
    "lone_surrogate": _error(
        "A lone surrogate: one half of a character that takes two escapes.",
        r"Write both halves of the \ud83d\ude00 pair.",
    ),
    "invalid_weight": _error(
        "A weight other than 0 or 1.", "0 keeps a reply out of the training, 1 is normal."
    ),
    "no_assistant": _error("No message is from the assistant.", "Add the reply to be learned."),
    "last_not_assistant": _error(
        "The last message is not from the assistant.", "End with the reply to be learned."
    ),
    "invalid_tool_call": _error(
        "A tool call without an id or a name, or whose arguments are not JSON in a string.",
        'Write {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}.',
    ),
    "unanswered_tool_call": _error(
        "A tool call is not answered by the next messages.",
        "Follow it with a message with role tool and the call's id as tool_call_id.",
    ),
    "unexpected_tool_message": _error(
        "A tool message answers no call of the assistant message before it.",
        "Give it the id of that call as tool_call_id, or leave it out.",
    ),
    "unlisted_tool": _warning(
        "A call of a tool that the example does not list.",
        "List it in 'tools': chats list their tools, and the model learns to read that list.",
    ),
    "words_beside_call": _warning(
        "A reply has both words and a tool call.",
        "Leave the words out: chats take a reply for a call only if it begins with one.",
    ),
    "duplicate_key": _warning(
        "An object repeats a key; only the last value counts.", "Keep one of them."
    ),
    "name_ignored": _warning(
        "A message has a name, which the model does not see.",
        "Write it into the content if needed.",
    ),
    "empty_reply": _warning("A reply is empty.", "Write what should be said."),
    "empty_question": _warning("A user's message is empty.", "Write it, or leave the example out."),
    "no_user": _warning(
        "No message is from the user.", "Add the message that is replied to."
    ),
    "trains_nothing": _warning(
        "Every reply of the example has weight 0.", "Give one weight 1, or leave the example out."
    ),
    "too_long": _warning(
        "By estimate, the example is longer than the context of the default base model.",
        "Shorten it: the rest is cut off, the last reply first.",
    ),
    # its text
    "padded_reply": _warning(
        "A reply begins or ends with white space, which the model learns, too.",
        "Take it off (--fix does).",
    ),
    "garbled_text": _warning(
        "Text that was once read in the wrong encoding (`Ã©` for `é`), or lost characters.",
        "Write it again from the source.",
    ),
    "invisible_character": _warning(
        "A control character, or an invisible one: zero-width, or changing the direction of text.",
        "Take it out (--fix does).",
    ),
    "secret": _warning(
        "Text that looks like an API key, a token or a private key.",
        "Take it out (--fix does), and make it invalid where it came from.",
    ),
    "email_address": _warning(
        "An e-mail address, unless its domain is reserved for examples (example.com and others).",
        "Take it out (--fix does): a model can repeat what it was trained on.",
    ),
    # its prompt
    "missing_system_prompt": _warning(
        "Some examples have a system prompt, others have none.",
        "Give all the same one: chats begin with the prompt that was trained.",
    ),
    "other_system_prompt": _warning(
        "A few examples have another system prompt than nearly all others.",
        "Give all the same one.",
    ),
    "varying_system_prompts": _note(
        "There are several system prompts, and no usual one.",
        "Chat with the one that belongs to the question.",
    ),
    # its duplicates
    "duplicate_example": _warning(
        "An earlier example has the same prompt and the same reply.", "Keep one of them."
    ),
    "conflicting_reply": _warning(
        "An earlier example has the same prompt, but another reply.", "Decide on one reply."
    ),
    "near_duplicate": _warning(
        "An earlier example has a prompt of nearly the same words and the same reply.",
        "Keep one of them, or rewrite one.",
    ),
    "near_conflict": _note(
        "An earlier example has a prompt of nearly the same words, but another label.",
        "Make sure that both are meant.",
    ),
    "leakage": _warning(
        "A validation example has the same prompt as a training example, or nearly.",
        "Leave it out of one of the files: it makes the score too good.",
    ),
    # its labels
    "off_style": _warning(
        "A reply is not one label in parentheses, where nearly all are.",
        "Replies can be constrained to labels only where every reply is one.",
    ),
    "near_miss": _warning(
        "A rare label looks like a misspelling of a frequent one.", "Use one spelling."
    ),
    "unseen_label": _warning(
        "A label of the validation file that is in no training example.",
        "Add training examples of it, or leave it out: it can never be right.",
    ),
    "labels_seen_once": _note(
        "Labels with a single example.", "A second and third example of each would help most."
    ),
    "imbalance": _note(
        "One label has ten times as many examples as the median label.",
        "Add examples of the others, if it is not really that frequent.",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem of a file. `line` is None if it concerns the entire file."""

    line: int | None
    code: str
    message: str
    advice: str
    severity: Severity

    @property
    def problem(self) -> str:
        """The message without the example's number and the full stop."""
        return self.message.removeprefix(f"Example {self.line}").lstrip(",: ").removesuffix(".")


def make_issue(line: int | None, code: str, message: str, advice: str | None = None) -> Issue:
    """Build an issue with the severity of its rule, and with the rule's advice by default."""
    rule = RULES[code]
    return Issue(line, code, message, rule.advice if advice is None else advice, rule.severity)


def main_issue(issues: Sequence[Issue]) -> Issue:
    """The issue that makes a line unusable: its first error, or its last issue (a blank line)."""
    return next((issue for issue in issues if issue.severity == "error"), issues[-1])


def lines_of(issues: Iterable[Issue]) -> tuple[int, ...]:
    """The lines of all issues that concern one."""
    return tuple(issue.line for issue in issues if issue.line is not None)


def preview(value: object) -> str:
    """A value in ASCII, shortened and without secrets: safe on every screen and in every log."""
    if value is None or isinstance(value, (str, int, float)):
        text = json.dumps(redact(value) if isinstance(value, str) else value)
        return text if len(text) <= 40 else f"{text[:36]}..."
    return f"an empty {type(value).__name__}" if not value else f"a {type(value).__name__}"


def abbreviate_lines(lines: Sequence[int]) -> str:
    """`line 3`, `lines 3, 4`, or the first few and how many more."""
    lines = list(dict.fromkeys(lines))  # a line may have several issues of one code
    named = ", ".join(str(line) for line in lines[:_MAX_LINES])
    more = f" and {len(lines) - _MAX_LINES} more" if len(lines) > _MAX_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {named}{more}"
