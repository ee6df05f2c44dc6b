"""`emojitune evaluate --cross-validate FILE`: ours beside the baselines, on what was left out."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emojitune.cli.data.files import check_usable
from emojitune.cli.data.standard_input import title
from emojitune.cli.evaluate import Connect, write_report
from emojitune.cli.render import Screen
from emojitune.cli.run import prepare_base
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.cross_validation import PROTOCOL
from emojitune.evaluation.html_report import html_report
from emojitune.evaluation.report import comparison
from emojitune.settings import Settings
from emojitune.workflow import cross_validate as workflow
from emojitune.workflow.cross_validate import TUNED, Rounds
from emojitune.workflow.progress import Progress
from emojitune.workflow.score import CONSTRAINED


def cross_validate(
    file: Path,
    rounds: Rounds,
    settings: Settings,
    connect: Connect,
    report: Path | None,
    screen: Screen,
) -> dict[str, Any]:
    """Run all rounds; returns what --json prints."""
    screen.step(f"Cross-validating {title(file)}, seeds {', '.join(map(str, rounds.seeds))}")
    screen.say(PROTOCOL)
    examples = check_usable(file, screen, minimum=10, name="training file").examples
    vocabulary = closed_vocabulary(examples)
    if not vocabulary:
        raise InvalidRequestError(
            f"The replies of {title(file)} are no small closed set: there is no label to leave out."
        )

    def follow(seed: int, job: Iterable[Progress]) -> Progress:
        screen.step(f"Training, seed {seed}")
        return screen.follow(job)

    with connect() as connection:
        if not connection.is_emojitune:
            raise InvalidRequestError(
                "Cross-validation trains one model a round and holds them and the base to labels: "
                "it needs an emojitune server. Leave --provider out to run it on this machine."
            )
        if connection.provider == "local":
            prepare_base(rounds.base, settings, screen)
        rows = workflow.cross_validate(
            connection.client,
            examples,
            vocabulary,
            rounds,
            follow=follow,
            counting=screen.counting,
        )
    [ours] = [row for row in rows if (row.model, row.decoding) == (TUNED, CONSTRAINED)]
    compared = [comparison(ours, row) for row in rows if row.model != TUNED]
    screen.step(f"Cross-validation: {len(ours.evaluation.scored)} replies, all rounds pooled")
    screen.contest(rows, compared)
    if report is not None:
        write_report(
            report, html_report(f"Cross-validation of {title(file)}", rows, compared), screen
        )
    return {
        "protocol": PROTOCOL,
        "seeds": list(rounds.seeds),
        "scores": [row.to_dict() for row in rows],
        "comparisons": [one.to_dict() for one in compared],
    }
