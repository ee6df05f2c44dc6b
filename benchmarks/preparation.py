"""A job's work on a file before its first step: `python -m benchmarks.preparation FILE`.

Prints for each part its processor time in seconds, and the memory that the process gained by then.
"""

import os
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.contenders import BATCH, CONTEXT, base_model
from benchmarks.processes import say
from emojitune.dataset.checks.duplicates import find_leakage
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import load_examples
from emojitune.models.renderer import Renderer
from emojitune.models.torch_environment import import_libraries
from emojitune.training.batches import shuffled_batches, truncate

VALID = Path("data/emoji_ft_valid.jsonl")


def parts(file: Path, renderer: Renderer) -> Iterator[str]:
    """Do one part after the other, and yield the name of each when it is done."""
    validation = load_examples(VALID)
    yield "before"
    examples = load_examples(file)
    yield "read"
    closed_vocabulary(examples)
    yield "vocabulary"
    find_leakage(examples, validation)
    yield "leakage"
    rendered = [renderer.render_example(example.messages) for example in examples]
    yield "render"
    cut = [truncate(example, CONTEXT) for example in rendered]
    shuffled_batches(cut, BATCH, seed=1, epoch=0)
    yield "batches"


def main(file: str) -> None:
    import_libraries()  # as jobs do: what it makes is no longer looked through for garbage
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(base_model()), stop_ids=())
    marks = [(name, time.process_time(), _resident_mb()) for name in parts(Path(file), renderer)]
    _, _, before = marks[0]
    say(
        {
            name: {"seconds": now - earlier, "grown_mb": size - before}
            for (_, earlier, _), (name, now, size) in pairwise(marks)
        }
    )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
