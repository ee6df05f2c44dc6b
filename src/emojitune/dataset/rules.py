"""What can be said of a training file: every code, how much it weighs, and what to do about it.

`docs/training-file.md` shows RULES as a table. Knows nothing of files or examples.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from emojitune.dataset.secrets import redact

Severity = Literal["error", "warning", "note"]  # stops; stops with --strict; never stops

CONVERT_ADVICE = "Run `emojitune data convert FILE`: it makes chat lines of it."

_MOST_LINES = 8


@dataclass(frozen=True, slots=True)
class Rule:
    """One code. `advice` is what an issue says that has none of its own."""

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
        "The file starts with a byte order mark, which is passed over.",
        "Nothing has to be done (--fix takes it out).",
    ),
    "blank_line": _note(
        "The line is blank, and is passed over.", "Nothing has to be done (--fix takes it out)."
    ),
    "invalid_json": _error("The line is not JSON.", "Write one complete JSON object a line."),
    "too_deep": _error(
        "The line's JSON is nested without end.", "Write one complete JSON object a line."
    ),
    "not_a_dictionary": _error(
        "The line is JSON, but no object.", 'Each line is {"messages": [...]}.'
    ),
    "missing_messages": _error("The line has no `messages`.", 'Add "messages": [...].'),
    "other_format": _error(
        "The line, or all of the file, is in a format that is not the chat's.",
        CONVERT_ADVICE,
    ),
    "preference_format": _error(
        "The line is in the format of preference learning (dpo).",
        "Write the input's messages and the preferred reply as one 'messages' list.",
    ),
    "extra_key": _error(
        "A key that does not belong there.", 'A line has "messages", and "tools" if it has any.'
    ),
    "invalid_tools": _error(
        "`tools` is no list of functions, or names one twice.",
        'Each is {"type": "function", "function": {"name": ..., "parameters": {...}}}.',
    ),
    # a message
    "invalid_messages": _error(
        "`messages` is no list, or an empty one.",
        "List the system, user and assistant messages.",
    ),
    "invalid_message": _error(
        "A message is no object.", 'Write {"role": ..., "content": ...}.'
    ),
    "missing_role": _error(
        "A message has no role.", "Use one of system, developer, user, assistant, tool."
    ),
    "unknown_role": _error(
        "A role that does not exist.", "Use one of system, developer, user, assistant, tool."
    ),
    "invalid_content": _error(
        "The content is no text.", 'A string, or a list of {"type": "text"} parts.'
    ),
    "lone_surrogate": _error(
        "Half of a character that takes two escapes.",
        r"Write both halves of the \ud83d\ude00 pair.",
    ),
    "invalid_weight": _error(
        "A weight other than 0 and 1.", "0 keeps a reply out of the training, 1 is normal."
    ),
    "no_assistant": _error("No message is the assistant's.", "Add the reply to be learned."),
    "last_not_assistant": _error(
        "The last message is not the assistant's.", "End with the reply to be learned."
    ),
    "invalid_tool_call": _error(
        "A call of a tool that has no id or name, or whose arguments are no JSON in a string.",
        'Write {"id": ..., "type": "function", "function": {"name": ..., "arguments": "{...}"}}.',
    ),
    "unanswered_tool_call": _error(
        "A call is not answered before something else is said.",
        "Put a message with role tool and the call's id as tool_call_id behind it.",
    ),
    "unexpected_tool_message": _error(
        "A message of a tool answers no call of the assistant message before it.",
        "Give it the id of that call as tool_call_id, or leave it out.",
    ),
    "unlisted_tool": _warning(
        "A tool is called that the example does not list.",
        "List it in 'tools': whoever chats names the tools, and the model learns to read that.",
    ),
    "words_beside_call": _warning(
        "A reply has words and a call.",
        "Leave the words out: chats take a reply for a call only if it begins with one.",
    ),
    "duplicate_key": _warning(
        "A key stands twice in one object; only the last one counts.", "Keep one of them."
    ),
    "name_ignored": _warning(
        "A message has a name, which the model is not shown.",
        "Write it into the content if needed.",
    ),
    "empty_reply": _warning("A reply is empty.", "Write what should be said."),
    "empty_question": _warning("A user's message is empty.", "Write it, or leave the example out."),
    "no_user": _warning(
        "Nobody asks: no message is the user's.", "Add the message that is replied to."
    ),
    "trains_nothing": _warning(
        "Every reply of the example has weight 0.", "Give one weight 1, or leave the example out."
    ),
    "too_long": _warning(
        "By estimate, the example is longer than the default base model reads.",
        "Shorten it: what lies beyond is cut off, the last reply first.",
    ),
    # its text
    "padded_reply": _warning(
        "A reply begins or ends with white space, which is learned with it.",
        "Take it off (--fix does).",
    ),
    "garbled_text": _warning(
        "Text that was read in the wrong encoding once (`Ã©` for `é`), or lost characters.",
        "Write it anew from the source.",
    ),
    "invisible_character": _warning(
        "A control character, or one that nobody sees: zero-width, or turning the direction.",
        "Take it out (--fix does).",
    ),
    "secret": _warning(
        "What looks like a key, a token or a private key.",
        "Take it out (--fix does), and make it invalid where it came from.",
    ),
    "email_address": _warning(
        "An e-mail address of somebody, example.com and its kin aside.",
        "Take it out (--fix does): a model can repeat what it was trained on.",
    ),
    # its prompt
    "missing_system_prompt": _warning(
        "Some examples have a system prompt, others none.",
        "Give all the same one: chats begin with the prompt that was trained.",
    ),
    "other_system_prompt": _warning(
        "A few examples have another system prompt than nearly all.", "Give all the same one."
    ),
    "varying_system_prompts": _note(
        "There are several system prompts, none of them usual.",
        "Chat with the one that belongs to the question.",
    ),
    # its repetitions
    "duplicate_example": _warning(
        "The same prompt with the same reply stands there before.", "Keep one of them."
    ),
    "conflicting_reply": _warning(
        "The same prompt with another reply stands there before.", "Decide on one reply."
    ),
    "near_duplicate": _warning(
        "A prompt of nearly the same words has the same reply.",
        "Keep one of them, or write one anew.",
    ),
    "near_conflict": _note(
        "A prompt of nearly the same words has another label.", "Make sure that both are meant."
    ),
    "leakage": _warning(
        "A validation example asks what, nearly, a training example asks.",
        "Leave it out of one of the files: it makes the score too good.",
    ),
    # its labels
    "off_style": _warning(
        "A reply is not one label in parentheses, where nearly all are.",
        "Replies can be held to labels only where every reply is one.",
    ),
    "near_miss": _warning(
        "A rare label looks like a slip of a frequent one.", "Use one spelling."
    ),
    "unseen_label": _warning(
        "A label of the validation file that no training example has.",
        "Add training examples of it, or leave it out: it can never be right.",
    ),
    "labels_seen_once": _note(
        "Labels with a single example.", "A second and third example of each would help most."
    ),
    "imbalance": _note(
        "One label has ten times the examples of the usual one.",
        "Add examples of the others, if it is not really that frequent.",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing to mend. `line` is None when it concerns the file as a whole."""

    line: int | None
    code: str
    message: str
    advice: str
    severity: Severity


def main_issue(issues: Sequence[Issue]) -> Issue:
    """Why a line is no example: its first error, or what else was said of it, as of a blank one."""
    return next((one for one in issues if one.severity == "error"), issues[-1])


def make_issue(line: int | None, code: str, message: str, advice: str | None = None) -> Issue:
    """An issue that weighs, and advises unless told otherwise, what its rule says."""
    rule = RULES[code]
    return Issue(line, code, message, rule.advice if advice is None else advice, rule.severity)


def preview(value: object) -> str:
    """A found value in ASCII, in brief, without secrets: safe on every screen and in every log."""
    if value is None or isinstance(value, (str, int, float)):
        text = json.dumps(redact(value) if isinstance(value, str) else value)
        return text if len(text) <= 40 else f"{text[:36]}..."
    return f"an empty {type(value).__name__}" if not value else f"a {type(value).__name__}"


def abbreviate_lines(lines: Sequence[int]) -> str:
    """`line 3`, `lines 3, 4`, or the first few and how many more."""
    lines = list(dict.fromkeys(lines))  # a line may have several issues of a kind
    named = ", ".join(str(line) for line in lines[:_MOST_LINES])
    more = f" and {len(lines) - _MOST_LINES} more" if len(lines) > _MOST_LINES else ""
    return f"line{'s' if len(lines) > 1 else ''} {named}{more}"
