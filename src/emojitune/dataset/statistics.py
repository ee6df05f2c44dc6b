"""Statistics of examples: label frequencies, words, estimated tokens, the closed vocabulary.

Tokens are estimated from characters, to within about a fifth: no tokenizer is loaded.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emojitune.dataset.example import Message, TrainingExample
from emojitune.dataset.tool_format import CALL_BEGIN
from emojitune.labels import is_label, vocabulary_of

CHARACTERS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4  # role and delimiters, as in OpenAI's own counting recipe

MAX_LABEL_LENGTH = 64
MAX_VOCABULARY_SIZE = 2000


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """The numbers that `emojitune data stats` shows and the cost estimate needs."""

    examples: int
    system_prompts: tuple[str, ...]
    frequencies: tuple[tuple[str, int], ...]  # (reply, count), most frequent first
    labels_in_style: int  # replies that are one label in parentheses
    words: tuple[int, float, int]  # of a question: fewest, median, most
    estimated_tokens: int  # in one epoch


def describe(examples: Sequence[TrainingExample]) -> DatasetStatistics:
    """Count labels, words and tokens of `examples`."""
    replies = Counter(example.reply for example in examples)
    words = sorted(len(example.question.split()) for example in examples) or [0]
    systems = {m.content for example in examples for m in example.messages if m.role == "system"}
    return DatasetStatistics(
        examples=len(examples),
        system_prompts=tuple(sorted(systems)),
        frequencies=tuple(sorted(replies.items(), key=lambda item: (-item[1], item[0]))),
        labels_in_style=sum(is_label(example.reply) for example in examples),
        words=(words[0], statistics.median(words), words[-1]),
        estimated_tokens=sum(estimate_tokens(example.conversation) for example in examples),
    )


def shared_system_prompt(examples: Sequence[TrainingExample]) -> str:
    """The system prompt of every conversation; "" where they differ, or one has none."""
    first_messages = {example.messages[0] for example in examples}
    first = next(iter(first_messages), None)
    if len(first_messages) != 1 or first is None or first.role not in ("system", "developer"):
        return ""
    return first.content


def estimate_tokens(messages: Iterable[Message]) -> int:
    """Estimate the tokens that a hosted model counts in `messages`."""
    return sum(
        math.ceil(len(message.content) / CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE
        for message in messages
    )


def closed_vocabulary(examples: Sequence[TrainingExample]) -> tuple[str, ...]:
    """The replies that a model tuned on `examples` can be constrained to; () when it is open.

    It is closed when every trained reply is one line of at most 64 characters, at most 2000 are
    distinct, none calls a tool, and either all are labels in parentheses, or each is used twice on
    average.
    """
    replies = [reply for example in examples for reply in example.trained_replies]
    vocabulary = vocabulary_of(replies)
    if not vocabulary or len(vocabulary) > MAX_VOCABULARY_SIZE:
        return ()
    if not all(map(_could_be_label, vocabulary)):
        return ()
    closed = all(map(is_label, vocabulary)) or 2 * len(vocabulary) <= len(replies)
    return vocabulary if closed else ()


def _could_be_label(reply: str) -> bool:
    one_line = reply.splitlines() == [reply] and bool(reply.strip())
    short = len(reply) <= MAX_LABEL_LENGTH
    return one_line and short and not reply.startswith(CALL_BEGIN)
