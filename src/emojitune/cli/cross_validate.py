"""`emojitune evaluate --cross-validate FILE`: fine-tuning and baselines on held-out examples."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from emojitune.cli.data.files import check_usable
from emojitune.cli.evaluate import Connect, write_report
from emojitune.cli.paths import display_name
from emojitune.cli.render import Screen
from emojitune.cli.run import prepare_base
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.errors import InvalidRequestError
from emojitune.evaluation.cross_validation import PROTOCOL
from emojitune.evaluation.html_report import html_report
from emojitune.evaluation.protocol import CONSTRAINED
from emojitune.evaluation.report import comparison
from emojitune.settings import Settings
from emojitune.workflow import cross_validate as workflow
from emojitune.workflow.cross_validate import TUNED, CrossValidationConfig
from emojitune.workflow.progress import Progress


def cross_validate(
    file: Path,
    config: CrossValidationConfig,
    settings: Settings,
    connect: Connect,
    report: Path | None,
    screen: Screen,
) -> dict[str, Any]:
    """Run all rounds and return the result for --json."""
    screen.heading(
        f"Cross-validating {display_name(file)}, seeds {', '.join(map(str, config.seeds))}"
    )
    screen.say(PROTOCOL)
    examples = check_usable(file, screen, minimum=10, name="training file").examples
    vocabulary = closed_vocabulary(examples)
    if not vocabulary:
        raise InvalidRequestError(
            f"The replies of {display_name(file)} are not a small closed set: "
            "there is no label to leave out."
        )

    def follow(seed: int, job: Iterable[Progress]) -> Progress:
        screen.heading(f"Training, seed {seed}")
        return screen.follow(job)

    with connect() as connection:
        if not connection.is_emojitune:
            raise InvalidRequestError(
                "Cross-validation trains one model per round and constrains them and the base to "
                "labels: it needs an emojitune server. Leave --provider out to run it on this "
                "machine."
            )
        if connection.provider == "local":
            prepare_base(config.base, settings, screen)
        rows = workflow.cross_validate(
            connection.client,
            examples,
            vocabulary,
            config,
            follow=follow,
            progress_bars=screen.progress_bars,
        )
    [tuned] = [row for row in rows if (row.model, row.decoding) == (TUNED, CONSTRAINED)]
    comparisons = [comparison(tuned, row) for row in rows if row.model != TUNED]
    screen.heading(f"Cross-validation: {len(tuned.evaluation.scored)} replies, all rounds pooled")
    screen.cross_validation(rows, comparisons)
    if report is not None:
        write_report(
            report,
            html_report(f"Cross-validation of {display_name(file)}", rows, comparisons),
            screen,
        )
    return {
        "protocol": PROTOCOL,
        "seeds": list(config.seeds),
        "scores": [row.to_dict() for row in rows],
        "comparisons": [one.to_dict() for one in comparisons],
    }
