"""Environment variables of torch's libraries, and their fast import.

The libraries read the variables when they are loaded, so they must be set before. By default glibc
returns large blocks to the system at once and requests them again for the next tensor; blocks that
are kept need not be zeroed again. OpenMP's threads spin before they sleep when they wait for one
another: long spinning is fastest on an idle machine and ruinous on a busy one. Training hardly uses
them (see training/gradients.py) and does not spin; inference has many small products, and spins
briefly. docs/log has the cost of each choice.
"""

import ctypes
import gc
import os
import sys
from contextlib import suppress

TRAINING_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "OMP_WAIT_POLICY": "PASSIVE",
}
_INFERENCE_ENVIRONMENT = {"GOMP_SPINCOUNT": "10000"}


def prepare_inference() -> None:
    """Set OpenMP's variables for this process, unless the user has; before torch is loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _INFERENCE_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def return_free_memory() -> None:
    """Return freed memory that the allocator keeps to the system, where it can be told to."""
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def import_libraries() -> None:
    """Import torch and transformers, unless they are loaded.

    They create a million objects that live until the end. Collecting garbage among these,
    repeatedly during the import and once more at the end of the process, takes longer than training
    some small jobs: they are exempted (`gc.freeze`). Later objects are collected as usual.
    transformers' models take as long again to import, and a plain Llama needs none of them: they
    are imported where they are used.

    Raises:
        OSError: The working folder was deleted: MKL would end the process.
    """
    if "transformers" in sys.modules:
        return
    os.getcwd()
    collecting = gc.isenabled()
    gc.disable()
    try:
        import torch  # noqa: F401
        from transformers import PreTrainedTokenizerFast  # noqa: F401
    finally:
        gc.freeze()
        if collecting:
            gc.enable()
