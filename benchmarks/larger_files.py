"""Larger training files, made of one: more examples, or longer prompts."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emojitune.dataset.example import TrainingExample
from emojitune.dataset.validation import load_examples
from emojitune.models.chat_template import Renderer


def repeated(file: Path, times: int, target: Path) -> Path:
    """The examples of `file` so many times, each time in another order."""
    examples = load_examples(file)
    copies = (random.Random(n).sample(examples, len(examples)) for n in range(times))
    return _write(target, [example for copy in copies for example in copy])


def lengthened(file: Path, tokens: int, count: int, renderer: Renderer, target: Path) -> Path:
    """`count` examples whose user messages have about so many tokens.

    A message is followed by those of other examples, in an order of its own, and cut: real text,
    and no two prompts begin alike beyond the system prompt.
    """
    examples = load_examples(file)
    questions = [example.question for example in examples]
    return _write(
        target,
        [
            _with_question(example, _text(example.question, questions, tokens, seed, renderer))
            for seed, example in enumerate(examples[:count])
        ],
    )


def _text(first: str, others: Sequence[str], tokens: int, seed: int, renderer: Renderer) -> str:
    ids, draw = renderer.encode_text(first), random.Random(seed)
    while len(ids) < tokens:
        ids += renderer.encode_text(f" {draw.choice(others)}")
    return renderer.decode(ids[:tokens])


def _with_question(example: TrainingExample, question: str) -> TrainingExample:
    return TrainingExample(
        tuple(
            replace(message, content=question) if message.role == "user" else message
            for message in example.messages
        )
    )


def _write(target: Path, examples: Sequence[TrainingExample]) -> Path:
    target.write_text("".join(e.to_json() + "\n" for e in examples), encoding="utf-8")
    return target
