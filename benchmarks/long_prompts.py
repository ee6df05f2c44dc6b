"""Long prompts, side by side: `python -m benchmarks.long_prompts [--tokens 512 2048 7900]`.

emojitune, transformers' generate and llama.cpp answer prompts that no cache has seen, with the same
weights in 16 bits, one prompt at a time. Each engine runs in a process of its own, round by round.
Rows are medians over the rounds. Ends with 1 when emojitune takes more than 1.5 times as long as
llama.cpp for the longest prompt, or needs over 1.5 GB for it.

With ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16, a machine that has a matrix unit shows what one without it
would.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import gguf
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

from benchmarks import gguf_file, machine, processes, report
from benchmarks.contenders import base_model
from benchmarks.long_prompt import ENGINES, LLAMA_CPP, OURS
from emojitune.models.catalog import SMOLLM2_135M, WheelSource

TOKENS = (512, 2048, 7900)  # the last fills most of a context of 8,192
MAX_RATIO = 1.5  # of our time for the longest prompt, over llama.cpp's
MAX_MB = 1500.0  # beyond idle

Rows = dict[str, dict[str, dict[str, float]]]


def exported(folder: Path) -> Path:
    """The base model as a GGUF whose matrices have 16 bits."""
    assert isinstance(SMOLLM2_135M.source, WheelSource)
    original = gguf_file.of_wheel(SMOLLM2_135M.source, folder)
    module = AutoModelForCausalLM.from_pretrained(base_model(), dtype=torch.bfloat16)
    target = folder / "f16.gguf"
    weights = dict(module.named_parameters())
    gguf_file.with_weights(original, weights, target, gguf.GGMLQuantizationType.F16)
    return target


def measure(file: Path, tokens: list[int], rounds: int, console: Console) -> dict[str, list[Any]]:
    """All runs of each engine; a round has prompts of its own."""
    runs: dict[str, list[Any]] = {name: [] for name in ENGINES}
    for number in range(rounds):
        console.print(f"Round {number + 1} of {rounds}", highlight=False)
        contenders = {
            name: partial(processes.measured, "benchmarks.long_prompt", name, file, number, *tokens)
            for name in ENGINES
        }
        for name, found in processes.interleaved(contenders, 1, console).items():
            runs[name] += found
    return runs


def medians(runs: dict[str, list[Any]]) -> Rows:
    """Medians over the rounds, by engine and length."""
    return {
        name: {
            length: {what: median(run[length][what] for run in found) for what in found[0][length]}
            for length in found[0]
        }
        for name, found in runs.items()
    }


def table(rows: Rows) -> Table:
    """A row for each engine and length; the ratio is our time for the answer over its own."""
    shown = Table("tokens", "engine", "first token", "16 tokens", "ours / its", "MB beyond idle")
    for length in rows[OURS]:
        for name, by_length in rows.items():
            row, ours = by_length[length], rows[OURS][length]
            shown.add_row(
                f"{int(length):,}",
                name,
                f"{row['first_s']:.2f} s",
                f"{row['answer_s']:.2f} s",
                f"{ours['answer_s'] / row['answer_s']:.2f} ×",
                f"{row['beyond_idle_mb']:,.0f}",
            )
    return shown


def broken(rows: Rows) -> list[str]:
    """The bounds that the longest prompt breaks, in words."""
    longest = max(rows[OURS], key=int)
    ours, theirs = rows[OURS][longest], rows[LLAMA_CPP][longest]
    bounds = {
        f"over {MAX_RATIO:g} × llama.cpp's time": ours["answer_s"] > MAX_RATIO * theirs["answer_s"],
        f"over {MAX_MB:,.0f} MB beyond idle": ours["beyond_idle_mb"] > MAX_MB,
    }
    return [bound for bound, is_broken in bounds.items() if is_broken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=report.RESULTS / "long_prompts.json")
    given = parser.parse_args()
    console, before = Console(), machine.state()
    before["instructions at most"] = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    console.print(
        f"torch: {torch.backends.cpu.get_cpu_capability()}, bf16 units "
        f"{', '.join(before['bf16 units']) or 'none'}; ONEDNN_MAX_CPU_ISA: "
        f"{before['instructions at most']}",
        highlight=False,
    )
    with TemporaryDirectory() as folder:
        runs = measure(exported(Path(folder)), given.tokens, given.rounds, console)
    rows = medians(runs)
    console.print(table(rows))
    for bound in broken(rows):
        console.print(f"Broken: {bound}", highlight=False)
    report.write(given.json, console, {"machine": before, "rows": rows, "runs": runs})
    sys.exit(1 if broken(rows) else 0)


if __name__ == "__main__":
    main()
