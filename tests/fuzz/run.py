"""A long run of all fuzz targets, and a table of the results.

    python tests/fuzz/run.py --cases 10000 --seed 1

Continues after a violation. Each is printed with its case.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from targets import FuzzTarget, open_targets

_MAX_PRINTED = 5  # violations per target


def run(target: FuzzTarget, cases: int, number: int) -> Counter[str]:
    """Run `cases` cases of a target and count them and those with violations."""
    found: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases)
    def look(case: object) -> None:
        violations = target.violations(case)
        found["cases"] += 1
        found["violations"] += bool(violations)
        if violations and found["violations"] <= _MAX_PRINTED:
            print(f"{target.title}: {violations[0]}\n    {str(case)[:2000]}\n", file=sys.stderr)

    look()
    return found


def main() -> None:
    """Run and print a table; the exit status is 1 if there was a violation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given_ = parser.parse_args()
    logging.disable(logging.WARNING)
    began = time.monotonic()
    total: Counter[str] = Counter()
    print("| what | cases | server errors and other violations |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, open_targets(Path(folder)) as targets:
        for target in targets.values():
            found = run(target, given_.cases * target.share // 100, given_.seed)
            total += found
            print(f"| {target.title} | {found['cases']} | {found['violations']} |", flush=True)
    print(f"| all | {total['cases']} | {total['violations']} |")
    print(f"\n{time.monotonic() - began:.0f} s, seed {given_.seed}")
    sys.exit(bool(total["violations"]))


if __name__ == "__main__":
    main()
