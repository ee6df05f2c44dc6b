"""Prompts to reply to: any number of them, and no two equal.

An engine with a prefix cache shall find nothing of a new prompt but the system prompt, which all
share. Where the file's messages do not suffice, they are used again after an opening phrase.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from emojitune.dataset.example import TrainingExample

OPENINGS = ("", "Well, ", "Guess what: ", "You know, ", "By the way, ", "Hey! ")


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
