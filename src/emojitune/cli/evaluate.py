"""`emojitune evaluate`: models scored on a file, compared pair by pair."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from emojitune.cli.adapter_folder import adapter_completers, is_adapter_folder
from emojitune.cli.data.files import check_usable
from emojitune.cli.paths import display_name
from emojitune.cli.render import Screen
from emojitune.dataset.example import TrainingExample
from emojitune.disk import open_private
from emojitune.errors import ConfigurationError, ProviderError
from emojitune.evaluation.evaluate import evaluate as evaluate_on
from emojitune.evaluation.html_report import html_report
from emojitune.evaluation.protocol import (
    CONSTRAINED,
    FREE,
    LOCAL_WORKERS,
    scoring_vocabulary,
    text_token_limit,
    warm_up,
)
from emojitune.evaluation.report import ReportRow, comparisons, report_row
from emojitune.models.catalog import is_fine_tuned
from emojitune.settings import Settings
from emojitune.workflow.provider import Connection
from emojitune.workflow.score import Candidate, score

Connect = Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The options of the command line."""

    model: str
    file: Path
    against: str | None = None
    report: Path | None = None
    workers: int | None = None


def evaluate(
    options: EvaluateOptions, settings: Settings, connect: Connect, screen: Screen
) -> dict[str, Any]:
    """Score one model, or two with their differences, and return the result for --json."""
    examples = check_usable(options.file, screen, minimum=1, name="validation file").examples
    data = ScoringData(examples, scoring_vocabulary(examples), options.workers)
    if not data.vocabulary:
        screen.say(
            "The file's replies are text, not a small closed set: they are compared as text."
        )
    rows = _score(options.model, data, settings, connect, screen)
    against: list[ReportRow] = []
    if options.against is not None:
        against = _score(options.against, data, settings, connect, screen)
    compared = comparisons(rows, against)
    for one in compared:
        screen.comparison(one)
    if options.report is not None:
        heading = f"{options.model} on {display_name(options.file)}"
        write_report(options.report, html_report(heading, [*rows, *against], compared), screen)
    return {
        "scores": [row.to_dict() for row in (*rows, *against)],
        "comparisons": [one.to_dict() for one in compared],
    }


def write_report(path: Path, page: str, screen: Screen) -> None:
    """Write the HTML report.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    try:
        with open_private(path, "w") as file:  # it contains messages and replies
            file.write(page.encode("utf-8", "replace").decode())
    except OSError as error:
        raise ConfigurationError(
            f"The report cannot be written to {path} ({error.strerror}). Name another file."
        ) from error
    screen.say(f"Report: {path}")


@dataclass(frozen=True, slots=True)
class ScoringData:
    """The examples to score on, their vocabulary, and the number of concurrent requests.

    `vocabulary` is () if the replies are text.
    """

    examples: tuple[TrainingExample, ...]
    vocabulary: tuple[str, ...]
    workers: int | None

    @property
    def text_tokens(self) -> int | None:
        """As in `Candidate`."""
        return None if self.vocabulary else text_token_limit(self.examples)


def _score(
    model: str, data: ScoringData, settings: Settings, connect: Connect, screen: Screen
) -> list[ReportRow]:
    screen.heading(f"Scores of {model}")
    if is_adapter_folder(model):
        rows = _score_folder(Path(model), data, settings, screen)
    else:
        with connect() as connection:
            rows = _score_model(connection, model, data, screen)
    screen.estimates(rows)
    return rows


def _score_model(
    connection: Connection, model: str, data: ScoringData, screen: Screen
) -> list[ReportRow]:
    """Score a fine-tuned model on its own labels, or a base constrained to the expected ones."""
    tuned = is_fine_tuned(model)
    with screen.progress_bars() as update:
        score_candidates = partial(
            score,
            connection.client,
            examples=data.examples,
            vocabulary=data.vocabulary,
            is_emojitune=connection.is_emojitune,
            workers=data.workers,
            progress=lambda candidate, done, total: update(candidate.decoding, done, total),
        )
        rows = score_candidates([Candidate(model, FREE, text_tokens=data.text_tokens)])
        if connection.is_emojitune and (tuned or data.vocabulary):  # others cannot constrain
            labels = () if tuned else data.vocabulary
            try:
                rows += score_candidates([Candidate(model, CONSTRAINED, labels)])
            except ProviderError as error:
                if error.param != "decoding":  # refused by models without a closed vocabulary
                    raise
    return rows


def _score_folder(
    folder: Path, data: ScoringData, settings: Settings, screen: Screen
) -> list[ReportRow]:
    rows = []
    with screen.progress_bars() as update:
        for decoding, complete in adapter_completers(
            folder, settings, text_tokens=data.text_tokens
        ).items():
            warm_up(complete, data.examples)
            result = evaluate_on(
                complete,
                data.examples,
                data.vocabulary,
                workers=data.workers or LOCAL_WORKERS,
                progress=partial(update, decoding),
            )
            rows.append(report_row(str(folder), decoding, result))
    return rows
