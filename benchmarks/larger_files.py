"""Larger training files, made of one: more examples, or longer prompts."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from emojitune.dataset.example import TrainingExample
from emojitune.dataset.validation import load_examples
from emojitune.models.renderer import Renderer


def repeated(file: Path, times: int, target: Path) -> Path:
    """The examples of `file` `times` over, each time in another order."""
    examples = load_examples(file)
    copies = (random.Random(n).sample(examples, len(examples)) for n in range(times))
    return _write(target, [example for copy in copies for example in copy])


def lengthened(file: Path, tokens: int, count: int, renderer: Renderer, target: Path) -> Path:
    """`count` examples whose user messages have about `tokens` tokens.

    A message is followed by those of other examples, in an order of its own, and cut: real text,
    and no two prompts share more than the system prompt.
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


def chats(file: Path, tokens: int, count: int, renderer: Renderer, target: Path) -> Path:
    """`count` chats of at most `tokens` tokens, about half of them in the reply.

    Message and reply are each a message of `file` followed by others, as in `lengthened`.
    """
    examples = load_examples(file)
    questions = [example.question for example in examples]
    around = len(
        renderer.render_example(_with_question(_with_reply(examples[0], ""), "").messages).ids
    )
    found = []
    for seed in range(count):
        first, second = examples[seed % len(examples)], examples[-1 - seed % len(examples)]
        reply = _text(second.question, questions, tokens // 2, -1 - seed, renderer)
        for more in range(tokens // 2 - around + 2, 0, -1):  # where texts meet, tokens do
            question = _text(first.question, questions, more, seed, renderer)
            chat = _with_reply(_with_question(first, question), reply)
            if len(renderer.render_example(chat.messages).ids) <= tokens:
                break
        found.append(chat)
    return _write(target, found)


def _with_reply(example: TrainingExample, reply: str) -> TrainingExample:
    *before, last = example.messages
    return TrainingExample((*before, replace(last, content=reply)))


def _text(first: str, others: Sequence[str], tokens: int, seed: int, renderer: Renderer) -> str:
    ids, rng = renderer.encode_text(first), random.Random(seed)
    while len(ids) < tokens:
        ids += renderer.encode_text(f" {rng.choice(others)}")
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
