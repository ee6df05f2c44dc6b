"""A long run of everything that is fuzzed, and a table of what was found.

    python tests/fuzz/run.py --cases 10000 --seed 1

Goes on behind a fault. Each is printed with the case that showed it.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from kinds import Kind, all_kinds

_TOLD = 5  # faults of a kind that are printed


def run(kind: Kind, cases: int, number: int) -> Counter[str]:
    """So many cases of a kind; returns how many there were, and how many had faults."""
    found: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(kind.cases)
    def look(case: object) -> None:
        faults = kind.faults(case)
        found["cases"] += 1
        found["faults"] += bool(faults)
        if faults and found["faults"] <= _TOLD:
            print(f"{kind.title}: {faults[0]}\n    {str(case)[:2000]}\n", file=sys.stderr)

    look()
    return found


def main() -> None:
    """Run, and print a table; the exit status says whether anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given_ = parser.parse_args()
    logging.disable(logging.WARNING)
    began = time.monotonic()
    total: Counter[str] = Counter()
    print("| what | cases | server errors and other faults |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, all_kinds(Path(folder)) as kinds:
        for kind in kinds.values():
            found = run(kind, given_.cases * kind.share // 100, given_.seed)
            total += found
            print(f"| {kind.title} | {found['cases']} | {found['faults']} |", flush=True)
    print(f"| all | {total['cases']} | {total['faults']} |")
    print(f"\n{time.monotonic() - began:.0f} s, seed {given_.seed}")
    sys.exit(bool(total["faults"]))


if __name__ == "__main__":
    main()
