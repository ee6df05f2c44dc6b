"""What usable examples say: secrets, damaged text, replies that are not trained, system prompts.

Warnings and notes only: usable, but seldom meant. Looks at each example by itself, and at what it
is prompted with; `repetition.py` compares examples, `check_labels.py` looks at their labels.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.rules import Issue, abbreviate_lines, make_issue
from emojitune.dataset.secrets import find_secrets, has_email_address
from emojitune.dataset.statistics import estimate_tokens

CONTEXT_TOKENS = 8192  # what the default base model reads
_NEARLY_ALL = 0.9  # share of a system prompt beside which others are strangers

# A letter with a mark, a dash or a quotation mark, in UTF-8 that was read as Windows-1252.
GARBLED = re.compile("Ã[\u0080-\u00bf]|Â[\u00a0-\u00bf]|â€|\ufffd")
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]"
)


def check_texts(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    """What is doubtful in each example, and in the system prompts of all."""
    clean = {""}  # texts that were looked at already: system prompts and labels repeat
    for line, example in zip(lines, examples, strict=True):
        yield from _of_example(line, example)
        for place, message in enumerate(example.messages, start=1):
            where = f"Example {line}, message {place}"
            found = list(_of_text(line, where, message)) if message.content not in clean else []
            yield from found
            if not found:
                clean.add(message.content)
            if message.role == "assistant" and message.content.strip() not in ("", message.content):
                what = f"{where}: the reply begins or ends with white space."
                yield make_issue(line, "padded_reply", what)
    yield from _untrained(examples, lines)
    yield from _of_system_prompts(examples, lines)


def _of_example(line: int, example: TrainingExample) -> Iterator[Issue]:
    asked = [message for message in example.messages if message.role == "user"]
    if not asked:
        yield make_issue(line, "no_user", f"Example {line} has no message from the user.")
    if any(not message.content.strip() for message in asked):
        yield make_issue(
            line, "empty_question", f"Example {line} has an empty message from the user."
        )
    tokens = estimate_tokens(example.conversation)
    if tokens > CONTEXT_TOKENS:
        what = f"Example {line} has about {tokens} tokens; {CONTEXT_TOKENS} are read."
        yield make_issue(line, "too_long", what)


def _of_text(line: int, where: str, message: Message) -> Iterator[Issue]:
    text = message.content
    for kind in find_secrets(text):
        yield make_issue(line, "secret", f"{where} holds what looks like {kind}.")
    if has_email_address(text):
        yield make_issue(line, "email_address", f"{where} holds an e-mail address.")
    if not text.isascii() and (garbled := GARBLED.search(text)):
        what = f"{where} holds {garbled[0]!a}, a sign of text read in the wrong encoding."
        yield make_issue(line, "garbled_text", what)
    if not text.isprintable() and (hidden := INVISIBLE.search(text)):
        what = f"{where} holds the invisible character U+{ord(hidden[0]):04X}."
        yield make_issue(line, "invisible_character", what)


def _untrained(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    trained = [bool(example.trained_replies) for example in examples]
    if any(trained):  # otherwise the file has an error that says so
        for line in (line for line, some in zip(lines, trained, strict=True) if not some):
            what = f"Example {line} trains nothing: each of its replies has weight 0."
            yield make_issue(line, "trains_nothing", what)


def _of_system_prompts(
    examples: Sequence[TrainingExample], lines: Sequence[int]
) -> Iterator[Issue]:
    prompts = [_system_prompt(example) for example in examples]
    said = Counter(prompt for prompt in prompts if prompt is not None)
    if not said:
        return
    without = [line for line, prompt in zip(lines, prompts, strict=True) if prompt is None]
    if without:
        what = f"{len(without)} of {len(examples)} examples have no system prompt"
        yield make_issue(
            without[0], "missing_system_prompt", f"{what}: {abbreviate_lines(without)}."
        )
    usual, count = said.most_common(1)[0]
    strange = [
        line for line, prompt in zip(lines, prompts, strict=True) if prompt not in (usual, None)
    ]
    if strange and count >= _NEARLY_ALL * said.total():
        what = f"{len(strange)} of {len(examples)} examples have another system prompt than the "
        what += f"usual one: {abbreviate_lines(strange)}."
        yield make_issue(strange[0], "other_system_prompt", what)
    elif strange:
        what = f"There are {len(said)} different system prompts."
        yield make_issue(None, "varying_system_prompts", what)


def _system_prompt(example: TrainingExample) -> str | None:
    said = [m.content for m in example.messages if m.role in ("system", "developer")]
    return "\n".join(said) if said else None
