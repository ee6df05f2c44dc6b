"""`emojitune data show`: one example, as written or as the tokens that a model sees."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from emojitune.cli.paths import display_name
from emojitune.cli.render import MaskedToken, Screen
from emojitune.dataset.example import TrainingExample
from emojitune.dataset.parse import parse_line, read_lines
from emojitune.dataset.rules import Issue, main_issue
from emojitune.errors import DatasetError, NotFoundError
from emojitune.settings import Settings


def show(
    file: Path, number: int, model: str | None, settings: Settings, screen: Screen
) -> dict[str, Any]:
    """Show the example of line `number`, with a model as its tokens, and return it for --json."""
    example = _example(file, number)
    messages = [message.to_dict() for message in example.conversation]
    if model is None:
        screen.example(example)
        return {"line": number, "messages": messages}
    tokens = _tokens(example, model, settings, screen)
    screen.tokens(tokens)
    return {"line": number, "messages": messages, "tokens": [asdict(token) for token in tokens]}


def _example(file: Path, number: int) -> TrainingExample:
    issues: list[Issue] = []
    try:
        raw = next((raw for line, raw in read_lines(file) if line == number), None)
    except OSError as error:
        raise NotFoundError(
            f"{display_name(file)} cannot be read ({error.strerror}). Check the path."
        ) from error
    if raw is None:
        raise NotFoundError(f"{display_name(file)} has no line {number}: name a lower one.")
    example = parse_line(number, raw, issues)
    if example is None:
        issue = main_issue(issues)
        raise DatasetError(f"{issue.message} {issue.advice}", code=issue.code)
    return example


def _tokens(
    example: TrainingExample, model: str, settings: Settings, screen: Screen
) -> list[MaskedToken]:
    from emojitune.models import torch_environment
    from emojitune.models.catalog import resolve_base
    from emojitune.models.download import fetch_checked

    base = resolve_base(model, settings)
    with screen.progress_bars() as update:
        folder = fetch_checked(base, settings, update)
    torch_environment.import_libraries()
    from emojitune.models.loader import load_renderer

    renderer = load_renderer(folder)
    rendered = renderer.render_example(example.conversation)
    return [
        MaskedToken(token, renderer.token_bytes(token)[0], trained)
        for token, trained in zip(rendered.ids, rendered.loss_mask, strict=True)
    ]
