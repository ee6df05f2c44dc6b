"""Replying, side by side: `python -m benchmarks.replying [--home DIR] [--prompts 40] [--rounds 3]`.

A model is tuned once through the server, or taken from the home folder given. Then every engine
runs in a process of its own, one after the other, round by round, so that a slow minute of the
machine affects all of them, and replies to the same prompts, one at a time and concurrently. Rows
are medians over the rounds. The tables go to the terminal, everything to a JSON file.
"""

import argparse
import time
from collections.abc import Collection, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from benchmarks import machine, processes, report
from benchmarks.contenders import base_model
from benchmarks.engine import Inputs, Level, Tuned
from benchmarks.engines import ENGINES, OURS
from benchmarks.reply_prompts import prompts
from benchmarks.tuned import tuned_model
from emojitune.dataset.validation import load_examples

TRAIN, VALID = Path("data/emoji_ft_train.jsonl"), Path("data/emoji_ft_valid.jsonl")
LEAST_WARM_UP = 4


def inputs(tuned: Tuned, tokenizer: Any, concurrencies: Sequence[int], count: int) -> Inputs:
    """Prompts of the validation file to be measured, of the training file for warming up.

    One at a time has `count` prompts; more at a time have more, and at least three batches.
    """
    wanted = {n: count if n == 1 else max(2 * count, 3 * n) for n in concurrencies}
    different = prompts(load_examples(VALID), tokenizer)
    if sum(wanted.values()) > len(different):
        raise SystemExit(f"{VALID} gives {len(different)} different prompts: ask for fewer.")
    warm, counted = iter(prompts(load_examples(TRAIN), tokenizer)), iter(different)
    levels = {
        n: Level(list(islice(warm, max(n, LEAST_WARM_UP))), list(islice(counted, wanted[n])))
        for n in concurrencies
    }
    return Inputs(tuned, next(warm), levels)


def measure(rounds: int, file: Path, console: Console) -> dict[str, list[Any]]:
    """All runs of each engine."""
    engines = {name: partial(_run, name, file) for name in ENGINES}
    return processes.interleaved(engines, rounds, console)


def _run(name: str, file: Path) -> Any:
    return processes.measured("benchmarks.engines", name, file, time.time())


def summary(runs: list[Any]) -> dict[str, Any]:
    """Medians over the rounds: latency one at a time, speed, start, memory, and the hits."""
    levels = runs[0]["levels"]
    alone = [quantiles(run["levels"]["1"]["latencies"], n=20, method="inclusive") for run in runs]
    peaks = [run["peak_mb"] for run in runs if run["peak_mb"] is not None]
    return {
        "p50_s": median(run[9] for run in alone),
        "p95_s": median(run[18] for run in alone),
        "replies_per_second": {n: median(_speed(run["levels"][n]) for run in runs) for n in levels},
        "processor_s": {n: median(_processor(run["levels"][n]) for run in runs) for n in levels},
        "ready_s": median(run["ready"] for run in runs),
        "first_reply_s": median(run["first_reply"] for run in runs),
        "peak_mb": median(peaks) if peaks else None,
        "top_1": median(_top_1(run["levels"].values()) for run in runs),
    }


def _speed(level: dict[str, Any]) -> float:
    return len(level["latencies"]) / level["seconds"]


def _processor(level: dict[str, Any]) -> float:
    return level["processor_seconds"] / len(level["latencies"])


def _top_1(levels: Collection[dict[str, Any]]) -> float:
    return sum(level["hits"] for level in levels) / sum(len(level["latencies"]) for level in levels)


def speeds(rows: dict[str, dict[str, Any]]) -> Table:
    """Latency and speed, each with our ratio to it."""
    ours = rows[OURS]
    levels = ours["replies_per_second"]
    shown = Table("replying", "p50 ms", "p95 ms", *(f"replies/s at {n}" for n in levels))
    for name, row in rows.items():
        shown.add_row(
            name,
            *(f"{1000 * row[p]:.0f} ({row[p] / ours[p]:.2f} ×)" for p in ("p50_s", "p95_s")),
            *(
                f"{row['replies_per_second'][n]:.1f} ({own / row['replies_per_second'][n]:.2f} ×)"
                for n, own in levels.items()
            ),
        )
    return shown


def costs(rows: dict[str, dict[str, Any]]) -> Table:
    """Processor time of a reply, time until the first one, memory, and accuracy."""
    levels = rows[OURS]["processor_s"]
    processor = (f"processor ms at {n}" for n in levels)
    shown = Table(
        "replying", *processor, "start → ready", "request → first reply", "peak MB", "top-1"
    )
    for name, row in rows.items():
        shown.add_row(
            name,
            *(f"{1000 * row['processor_s'][n]:.0f}" for n in levels),
            f"{row['ready_s']:.1f} s",
            f"{row['first_reply_s']:.1f} s",
            "–" if row["peak_mb"] is None else f"{row['peak_mb']:,.0f}",
            f"{row['top_1']:.1%}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="holds the tuned model, or gets it")
    parser.add_argument("--prompts", type=int, default=40, help="one at a time")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[4, 16, 64], help="beside 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=report.RESULTS / "replying.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    with TemporaryDirectory() as folder:
        exports = Path(folder)
        tokenizer = AutoTokenizer.from_pretrained(base_model())
        home = given.home or exports / "home"
        tuned = tuned_model(home, TRAIN, exports, tokenizer, console)
        file = exports / "inputs.json"
        engine_inputs = inputs(tuned, tokenizer, [1, *given.concurrency], given.prompts)
        file.write_bytes(TypeAdapter(Inputs).dump_json(engine_inputs))
        found = measure(given.rounds, file, console)
    rows = {name: summary(runs) for name, runs in found.items()}
    console.print(speeds(rows), costs(rows))
    counts = {"prompts": given.prompts, "concurrency": given.concurrency}
    report.write(given.json, console, {"machine": before, **counts, "rows": rows, "runs": found})


if __name__ == "__main__":
    main()
