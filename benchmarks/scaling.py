"""Scaling with the size of the training file and of its prompts: `python -m benchmarks.scaling`.

Files of 1, 10 and 100 times the examples, each run through the real loop, which reads, renders and
shuffles the entire file and is stopped after some steps: a fair sample of a shuffled file. The work
before the first step is also timed part by part. Then prompts of 16 to 1,024 tokens,
beside transformers' Trainer with PEFT, as far as that fits into memory.
"""

import argparse
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks import larger_files, machine, processes, report
from benchmarks.contenders import BATCH, base_model
from benchmarks.training import DATA, OURS, TRAINER, contender
from emojitune.models.renderer import Renderer

TIMES = (1, 10, 100)
TOKENS = (16, 64, 256, 1024)
SPARE = 0.9  # of the memory that is free


def of_sizes(
    folder: Path, times: list[int], steps: int, rounds: int, console: Console
) -> dict[int, dict[str, Any]]:
    """By the number of examples: our runs, and the parts of the preparation."""
    files = {n: larger_files.repeated(DATA, n, folder / f"times-{n}.jsonl") for n in times}
    runs = {
        f"{n} × the file": partial(contender, OURS, base_model(), file, steps)
        for n, file in files.items()
    }
    prepared = {
        f"{n} × the file, preparation": partial(processes.measured, "benchmarks.preparation", file)
        for n, file in files.items()
    }
    found = processes.interleaved(runs | prepared, rounds, console)
    return {
        _lines(file): {
            **_summary(found[f"{n} × the file"]),
            "preparation": _medians(found[f"{n} × the file, preparation"]),
        }
        for n, file in files.items()
    }


def of_prompts(
    folder: Path, tokens: list[int], steps: int, rounds: int, console: Console
) -> dict[int, dict[str, Any]]:
    """By the tokens of the user message: our runs, and Trainer's where they fit."""
    renderer = Renderer(AutoTokenizer.from_pretrained(base_model()), stop_ids=())
    limit = int(SPARE * machine.free_memory())
    contenders = {}
    for count in tokens:
        target = folder / f"tokens-{count}.jsonl"
        file = larger_files.lengthened(DATA, count, steps * BATCH, renderer, target)
        for name in (OURS, TRAINER):
            contenders[f"{count} tokens, {name}"] = partial(_fitting, name, file, steps, limit)
    found = processes.interleaved(contenders, rounds, console)
    return {
        count: {name: _summary(found[f"{count} tokens, {name}"]) for name in (OURS, TRAINER)}
        for count in tokens
    }


def _fitting(name: str, file: Path, steps: int, limit: int) -> Any:
    """A run; None where it needs more memory than there is."""
    try:
        return contender(name, base_model(), file, steps, limit)
    except processes.OutOfMemory:
        return None


def _summary(runs: list[Any]) -> dict[str, float] | None:
    """Medians; None where a run did not fit. The first step warms up, and is reported apart."""
    if None in runs:
        return None
    third = max(1, len(runs[0]["steps"]) // 3)
    return {
        "seconds_per_example": median(median(run["steps"]) for run in runs) / BATCH,
        "last_over_first": median(
            median(run["steps"][-third:]) / median(run["steps"][:third]) for run in runs
        ),
        "first_step_s": median(run["first_step"] for run in runs),
        "peak_mb": median(run["peak_mb"] for run in runs),
    }


def _medians(runs: list[Any]) -> dict[str, dict[str, float]]:
    return {
        part: {what: median(run[part][what] for run in runs) for what in runs[0][part]}
        for part in runs[0]
    }


def _lines(file: Path) -> int:
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def size_table(rows: dict[int, dict[str, Any]]) -> Table:
    """A row for each file."""
    shown = Table("examples", "s/example", "late/early steps", "start → first step", "peak MB")
    for examples, row in rows.items():
        shown.add_row(
            f"{examples:,}",
            f"{row['seconds_per_example']:.4f}",
            f"{row['last_over_first']:.2f} ×",
            f"{row['first_step_s']:.1f} s",
            f"{row['peak_mb']:,.0f}",
        )
    return shown


def preparation_table(rows: dict[int, dict[str, Any]]) -> Table:
    """A row for each file: processor time of each part, in seconds, and the memory they leave."""
    parts = list(next(iter(rows.values()))["preparation"])
    shown = Table("examples", *parts, "grown MB")
    for examples, row in rows.items():
        prepared = row["preparation"]
        seconds = [f"{prepared[part]['seconds']:.2f}" for part in parts]
        shown.add_row(f"{examples:,}", *seconds, f"{prepared[parts[-1]]['grown_mb']:,.0f}")
    return shown


def prompt_table(rows: dict[int, dict[str, Any]]) -> Table:
    """A row for each length, ours beside Trainer."""
    shown = Table(
        "user tokens", "ours, s/example", "Trainer", "our speedup", "peak MB, ours", "Trainer"
    )
    for tokens, row in rows.items():
        ours, trainer = row[OURS], row[TRAINER]
        mine = f"{ours['seconds_per_example']:.4f}" if ours else "does not fit"
        theirs = f"{trainer['seconds_per_example']:.4f}" if trainer else "does not fit"
        both = ours and trainer
        shown.add_row(
            f"{tokens:,}",
            mine,
            theirs,
            f"{trainer['seconds_per_example'] / ours['seconds_per_example']:.2f} ×"
            if both
            else "–",
            f"{ours['peak_mb']:,.0f}" if ours else "–",
            f"{trainer['peak_mb']:,.0f}" if trainer else "–",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, nargs="+", default=TIMES)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--steps", type=int, default=24, help="of each run on a larger file")
    parser.add_argument("--long-steps", type=int, default=4, help="of each run on longer prompts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=report.RESULTS / "scaling.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    with TemporaryDirectory() as name:
        folder = Path(name)
        sizes = of_sizes(folder, given.times, given.steps, given.rounds, console)
        prompts = of_prompts(folder, given.tokens, given.long_steps, given.rounds, console)
    console.print(size_table(sizes))
    console.print(preparation_table(sizes))
    console.print(prompt_table(prompts))
    counts = {"batch": BATCH, "steps": given.steps, "long_steps": given.long_steps}
    report.write(
        given.json,
        console,
        {"machine": before, **counts, "rounds": given.rounds, "examples": sizes, "tokens": prompts},
    )


if __name__ == "__main__":
    main()
