"""A file's examples as token ids, cut where the base model reads no further, and what was cut."""

from collections.abc import Sequence

from emojitune.dataset.rules import abbreviate_lines
from emojitune.dataset.validation import DatasetReport
from emojitune.models.renderer import RenderedExample, Renderer
from emojitune.training.batches import supervised_tokens, truncate


def render_file(
    file: DatasetReport, renderer: Renderer, max_tokens: int
) -> tuple[list[RenderedExample], str | None]:
    """The usable examples, none longer than `max_tokens`, and what was cut, in words."""
    examples: list[RenderedExample] = []
    cut: list[int] = []
    silent: list[int] = []
    for line, example in zip(file.lines, file.examples, strict=True):
        whole = renderer.render_example(example.conversation)
        examples.append(truncate(whole, max_tokens))
        if len(whole.ids) > max_tokens:
            cut.append(line)
            if supervised_tokens(whole) and not supervised_tokens(examples[-1]):
                silent.append(line)
    return examples, _told(cut, silent, len(examples), max_tokens) if cut else None


def _told(cut: Sequence[int], silent: Sequence[int], count: int, max_tokens: int) -> str:
    told = (
        f"{len(cut)} of {count} examples cut at {max_tokens} tokens, where the base model reads no "
        f"further ({abbreviate_lines(cut)})"
    )
    return f"{told}; no reply is left to learn in {abbreviate_lines(silent)}" if silent else told
