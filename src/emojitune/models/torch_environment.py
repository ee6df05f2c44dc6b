"""How torch's libraries come into a process: what they read from its environment, and quickly.

They read the variables when they are loaded: set before, or never. glibc hands large blocks back
to the system at once and asks for them anew for the next tensor; kept, they need not be cleared
again. OpenMP's threads, when they wait for one another, spin before they sleep: long spinning is
fastest on an idle machine and ruins a busy one. Training hardly needs them (see
training/gradients.py) and does not spin; a reply is many small products, and spins a little.
docs/log has what each choice costs.
"""

import gc
import os
import sys

TRAINING_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "OMP_WAIT_POLICY": "PASSIVE",
}
_CHAT = {"GOMP_SPINCOUNT": "10000"}


def prepare_inference() -> None:
    """Set what OpenMP reads, for this process, unless the person has; torch must not be loaded."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in _CHAT.items():
            os.environ.setdefault(name, value)


def import_libraries() -> None:
    """Import torch and transformers, if they are not there yet.

    They come with a million objects that stay to the end. Looking through these for garbage, again
    and again while they are made and once more at the end of the process, takes longer than many a
    small job trains: it is not done. What a process makes afterwards is looked after as always.
    transformers' models take as long again, and what is a Llama needs none of them: they are left
    to whoever does.

    Raises:
        OSError: The working folder is gone; torch's MKL would end the process.
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
