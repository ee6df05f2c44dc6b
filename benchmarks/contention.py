"""Contention for cores: `python -m benchmarks.contention [--steps 8] [--rounds 3] [--seconds 20]`.

Training, ours and transformers' Trainer with PEFT, quiet and beside a noisy neighbour that keeps
one thread busy; then a training job and four chats on one server, each alone and together.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, processes, report
from benchmarks.contenders import BATCH, base_model
from benchmarks.noisy_neighbour import KINDS, beside
from benchmarks.training import DATA, OURS, TRAINER, contender

QUIET = "quiet"
TOGETHER = "a job and chats"
BESIDE = {"spin": "with a busy Python thread", "multiply": "beside a busy matmul thread"}


def measure(
    steps: int, rounds: int, seconds: float, chats: int, console: Console
) -> dict[str, list[Any]]:
    """All runs, by contender and condition."""
    runs: dict[str, processes.Measure] = {}
    for name in (OURS, TRAINER):
        runs[_named(name, QUIET)] = partial(contender, name, base_model(), DATA, steps)
        for kind in KINDS:
            runs[_named(name, BESIDE[kind])] = partial(_beside, kind, name, steps)
    runs[TOGETHER] = partial(processes.measured, "benchmarks.together", seconds, chats)
    return processes.interleaved(runs, rounds, console)


def _beside(kind: str, name: str, steps: int) -> Any:
    with beside(kind):
        return contender(name, base_model(), DATA, steps)


def _named(name: str, condition: str) -> str:
    return f"{name}, {condition}"


def rates(found: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    """Medians over the rounds: examples/s or replies/s, by contender and condition."""
    medians: dict[str, dict[str, float]] = {}
    for name in (OURS, TRAINER):
        medians[name] = {
            where: BATCH / median(median(run["steps"]) for run in found[_named(name, where)])
            for where in (QUIET, *BESIDE.values())
        }
    for what in found[TOGETHER][0]:
        medians[what] = {
            where: median(run[what][where] for run in found[TOGETHER])
            for where in found[TOGETHER][0][what]
        }
    return medians


def table(rows: dict[str, dict[str, float]]) -> Table:
    """A row for each contender and its condition, with the slowdown against running alone."""
    shown = Table("workload", "condition", "per second", "slowdown")
    for name, by_condition in rows.items():
        alone = next(iter(by_condition.values()))
        for where, rate in by_condition.items():
            shown.add_row(name, where, f"{rate:.2f}", f"{alone / rate:.2f} ×")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each window on the server")
    parser.add_argument("--chats", type=int, default=4, help="at a time")
    parser.add_argument("--json", type=Path, default=report.RESULTS / "contention.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    found = measure(given.steps, given.rounds, given.seconds, given.chats, console)
    rows = rates(found)
    console.print(table(rows))
    counts = {"batch": BATCH, "steps": given.steps, "seconds": given.seconds, "chats": given.chats}
    report.write(given.json, console, {"machine": before, **counts, "rows": rows, "runs": found})


if __name__ == "__main__":
    main()
