"""Prompts to reply to: any number of them, and no two equal.

An engine with a prefix cache shall find nothing of a new prompt but the system prompt, which all
share. Where the file's messages do not suffice, they are used again after an opening phrase.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from emojitune.dataset.example import TrainingExample

OPENINGS = ("", "Well, ", "Guess what: ", "You know, ", "By the way, ", "Hey! ")

TEMPLATE = 40  # tokens of the system prompt and around the message


def digits(tokens: int, numbers: random.Random) -> str:
    """A message that makes a prompt of about `tokens`: each digit is one, and each space."""
    count = (tokens - TEMPLATE) // 4
    return " ".join(str(numbers.randrange(100, 1000)) for _ in range(count))


@dataclass(frozen=True, slots=True)
class Prompt:
    """System and user message, as an API takes them and as the chat template writes them."""

    messages: list[dict[str, str]]
    text: str
    label: str


def prompts(examples: Sequence[TrainingExample], tokenizer: Any) -> list[Prompt]:
    """All prompts of the examples, those without an opening first."""
    return [
        _prompt(opening, example, tokenizer) for opening, example in product(OPENINGS, examples)
    ]


def _prompt(opening: str, example: TrainingExample, tokenizer: Any) -> Prompt:
    system, user, reply = example.messages
    messages = [
        {"role": "system", "content": system.content},
        {"role": "user", "content": opening + user.content},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return Prompt(messages, text, reply.content)
