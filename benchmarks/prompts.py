"""Prompts with their replies, and the labels among which a reply is chosen: text and token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from emojitune.dataset.example import Message, TrainingExample
from emojitune.models.renderer import Renderer


@dataclass(frozen=True, slots=True)
class Prompts:
    """P prompts; `replies` are their true replies."""

    messages: list[tuple[Message, ...]]
    ids: list[tuple[int, ...]]
    replies: list[list[int]]
    labels: tuple[str, ...]
    label_ids: list[list[int]]
    stop_ids: frozenset[int]

    @staticmethod
    def of(
        examples: Sequence[TrainingExample], labels: Sequence[str], renderer: Renderer
    ) -> "Prompts":
        return Prompts(
            [example.prompt for example in examples],
            [renderer.render_prompt(example.prompt) for example in examples],
            [renderer.encode_text(example.reply) for example in examples],
            tuple(labels),
            [renderer.encode_text(label) for label in labels],
            renderer.stop_ids,
        )
