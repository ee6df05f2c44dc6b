"""Larger training files, made of one: more examples, or longer prompts."""

import random
from collections.abc import Iterator, Sequence
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
    ids: list[int] = []
    for text in _endless(first, others, seed):
        ids += renderer.encode_text(f" {text}" if ids else text)
        if len(ids) >= tokens:
            return renderer.decode(ids[:tokens])
    raise AssertionError("it has no end")


def _endless(first: str, others: Sequence[str], seed: int) -> Iterator[str]:
    yield first
    draw = random.Random(seed)
    while True:
        yield draw.choice(others)


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
