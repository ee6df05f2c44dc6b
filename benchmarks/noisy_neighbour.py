"""A noisy neighbour: `python -m benchmarks.noisy_neighbour spin|multiply` keeps one thread busy.

`spin` runs Python, `multiply` multiplies matrices that fit no small cache; both until they are
ended, or the process that started them is gone.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(kind: str) -> Iterator[None]:
    """Run a block beside such a neighbour, which is at work when the block begins."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.noisy_neighbour", kind], stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.communicate()


def spin() -> Callable[[], object]:
    return lambda: sum(range(1_000_000))


def multiply() -> Callable[[], object]:
    import torch

    torch.set_num_threads(1)
    one, other = torch.randn(2, 1024, 1024)
    return lambda: one @ other


KINDS = {"spin": spin, "multiply": multiply}


def main(kind: str) -> None:
    started_by, work = os.getppid(), KINDS[kind]()
    print("at work", flush=True)
    while os.getppid() == started_by:
        work()


if __name__ == "__main__":
    main(*sys.argv[1:])
