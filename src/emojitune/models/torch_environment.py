"""Environment variables that torch's libraries read when they are loaded: set before, or never.

glibc hands large blocks back to the system at once and asks for them anew for the next tensor;
kept, they need not be cleared again. OpenMP's threads, when they wait for one another, spin for a
while before they sleep: long spinning is fastest on an idle machine and ruins a busy one.
docs/log.md has what each choice costs.
"""

import os

TORCH_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "GOMP_SPINCOUNT": "10000",
}


def prepare_openmp() -> None:
    """Set what OpenMP reads, for this process, unless the person has; torch must not be loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", TORCH_ENVIRONMENT["GOMP_SPINCOUNT"])
