"""Training, side by side: `python -m benchmarks.training [--steps 8] [--rounds 3]`.

Every contender runs in a process of its own, one after the other, round by round, so that a slow
minute of the machine meets all of them. Rows are medians over the rounds; the first two steps of
each run warm up and are left out. The table goes to the terminal, everything to a JSON file.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, processes, report
from benchmarks.contenders import BATCH, CONTENDERS, base_model
from emojitune.models.torch_environment import TRAINING_ENVIRONMENT

OURS = "emojitune"
TRAINER = "transformers Trainer + PEFT, bf16"
FLOOR = "floor: matmuls only"
WARM_UP = 2
DATA = Path("data/emoji_ft_train.jsonl")


def measure(
    base: Path, file: Path, steps: int, rounds: int, console: Console
) -> dict[str, list[Any]]:
    """All runs of each contender, and of the floor."""
    contenders = {name: partial(contender, name, base, file, steps) for name in CONTENDERS}
    floor = partial(processes.measured, "benchmarks.floor", base, file, steps)
    return processes.interleaved({**contenders, FLOOR: floor}, rounds, console)


def contender(name: str, base: Path, file: Path, steps: int, memory: int | None = None) -> Any:
    """One run; ours with the server's environment, the others with their defaults."""
    environment = TRAINING_ENVIRONMENT if name == OURS else None
    arguments = (name, base, file, steps, time.time())
    return processes.measured(
        "benchmarks.contenders", *arguments, environment=environment, memory=memory
    )


def summary(runs: list[Any]) -> dict[str, float | None]:
    """Medians: seconds per step, examples/s, first step, memory."""
    step = median(median(run["steps"][WARM_UP:] or run["steps"]) for run in runs)
    return {
        "seconds_per_step": step,
        "examples_per_second": BATCH / step,
        "first_step_s": median(r["first_step"] for r in runs) if "first_step" in runs[0] else None,
        "peak_mb": median(r["peak_mb"] for r in runs) if "peak_mb" in runs[0] else None,
    }


def table(rows: dict[str, dict[str, Any]]) -> Table:
    """Each row with our speedup over it, and its distance from the floor."""
    shown = Table(
        "training", "examples/s", "our speedup", "× floor", "start → first step", "peak MB"
    )
    ours, floor = rows[OURS]["examples_per_second"], rows[FLOOR]["examples_per_second"]
    for name, row in rows.items():
        speed = row["examples_per_second"]
        shown.add_row(
            name,
            f"{speed:.1f}",
            f"{ours / speed:.2f} ×",
            f"{floor / speed:.1f}",
            "–" if row["first_step_s"] is None else f"{row['first_step_s']:.1f} s",
            "–" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path, default=report.RESULTS / "training.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    found = measure(base_model(), given.data, given.steps, given.rounds, console)
    rows = {name: summary(runs) for name, runs in found.items()}
    console.print(table(rows))
    everything = {"machine": before, "batch": BATCH, "steps": given.steps, "rows": rows}
    report.write(given.json, console, {**everything, "runs": found})


if __name__ == "__main__":
    main()
