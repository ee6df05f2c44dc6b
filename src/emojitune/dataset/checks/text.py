"""Checks of what examples say: secrets, damaged text, untrained replies, system prompts, length.

They yield warnings and notes: such examples are usable, but seldom intended.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.rules import Issue, abbreviate_lines, make_issue
from emojitune.dataset.secrets import find_secrets, has_email_address
from emojitune.dataset.statistics import estimate_tokens

_USUAL_SHARE = 0.9  # of a system prompt, from which other prompts are probably mistakes

# A letter with a mark, a dash or a quotation mark, in UTF-8 that was decoded as Windows-1252.
GARBLED = re.compile("Ã[\u0080-\u00bf]|Â[\u00a0-\u00bf]|â€|\ufffd")
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]"
)


def check_texts(
    examples: Sequence[TrainingExample], lines: Sequence[int], context_tokens: int | None
) -> Iterator[Issue]:
    """Issues of each example, longer ones than `context_tokens` included, and of system prompts."""
    clean = {""}  # texts without an issue: system prompts and labels repeat
    for line, example in zip(lines, examples, strict=True):
        yield from _check_example(line, example, context_tokens)
        for number, message in enumerate(example.messages, start=1):
            where = f"Example {line}, message {number}"
            new = message.content not in clean
            issues = list(_check_message(line, where, message)) if new else []
            yield from issues
            if not issues:
                clean.add(message.content)
            if message.role == "assistant" and message.content.strip() not in ("", message.content):
                problem = f"{where}: the reply begins or ends with white space."
                yield make_issue(line, "padded_reply", problem)
    yield from _check_trained(examples, lines)
    yield from _check_system_prompts(examples, lines)


def _check_example(
    line: int, example: TrainingExample, context_tokens: int | None
) -> Iterator[Issue]:
    questions = [message for message in example.messages if message.role == "user"]
    if not questions:
        yield make_issue(line, "no_user", f"Example {line} has no message from the user.")
    if any(not message.content.strip() for message in questions):
        problem = f"Example {line} has an empty message from the user."
        yield make_issue(line, "empty_question", problem)
    tokens = estimate_tokens(example.conversation)
    if context_tokens is not None and tokens > context_tokens:
        problem = f"Example {line} has about {tokens} tokens; {context_tokens} are read."
        yield make_issue(line, "too_long", problem)


def _check_message(line: int, where: str, message: Message) -> Iterator[Issue]:
    text = message.content
    for kind in find_secrets(text):
        yield make_issue(line, "secret", f"{where} holds what looks like {kind}.")
    if has_email_address(text):
        yield make_issue(line, "email_address", f"{where} holds an e-mail address.")
    if not text.isascii() and (garbled := GARBLED.search(text)):
        problem = f"{where} holds {garbled[0]!a}, a sign of text read in the wrong encoding."
        yield make_issue(line, "garbled_text", problem)
    if not text.isprintable() and (invisible := INVISIBLE.search(text)):
        problem = f"{where} holds the invisible character U+{ord(invisible[0]):04X}."
        yield make_issue(line, "invisible_character", problem)


def _check_trained(examples: Sequence[TrainingExample], lines: Sequence[int]) -> Iterator[Issue]:
    trained = [bool(example.trained_replies) for example in examples]
    if any(trained):  # otherwise the file has an error that says so
        for line in (line for line, some in zip(lines, trained, strict=True) if not some):
            problem = f"Example {line} trains nothing: each of its replies has weight 0."
            yield make_issue(line, "trains_nothing", problem)


def _check_system_prompts(
    examples: Sequence[TrainingExample], lines: Sequence[int]
) -> Iterator[Issue]:
    prompts = [_system_prompt(example) for example in examples]
    frequencies = Counter(prompt for prompt in prompts if prompt is not None)
    if not frequencies:
        return
    without = [line for line, prompt in zip(lines, prompts, strict=True) if prompt is None]
    if without:
        problem = f"{len(without)} of {len(examples)} examples have no system prompt: "
        problem += f"{abbreviate_lines(without)}."
        yield make_issue(without[0], "missing_system_prompt", problem)
    usual, count = frequencies.most_common(1)[0]
    others = [
        line for line, prompt in zip(lines, prompts, strict=True) if prompt not in (usual, None)
    ]
    if others and count >= _USUAL_SHARE * frequencies.total():
        problem = f"{len(others)} of {len(examples)} examples have another system prompt than the "
        problem += f"usual one: {abbreviate_lines(others)}."
        yield make_issue(others[0], "other_system_prompt", problem)
    elif others:
        problem = f"There are {len(frequencies)} different system prompts."
        yield make_issue(None, "varying_system_prompts", problem)


def _system_prompt(example: TrainingExample) -> str | None:
    texts = [m.content for m in example.messages if m.role in ("system", "developer")]
    return "\n".join(texts) if texts else None
