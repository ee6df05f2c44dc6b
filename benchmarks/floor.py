"""The least that a step must take: its matrix products, at the rate this machine has for them.

`python -m benchmarks.floor BASE FILE STEPS` prints the seconds of each step. Counted are the
distinct tokens only (the common prefix of a batch's examples once, and nothing after the last
learned token), the output head at learned tokens only, each product forward
and once backward, for the gradient of its input; nothing else.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoConfig, AutoTokenizer

from benchmarks.contenders import BATCH
from benchmarks.processes import say
from emojitune.dataset.validation import load_examples
from emojitune.models.linear import PackedLinear
from emojitune.models.renderer import RenderedExample, Renderer
from emojitune.training.batches import forward_tokens

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_REPEATS = 3


def rows(batch: Sequence[RenderedExample]) -> tuple[int, int]:
    """The number of distinct tokens of a batch, and of those that carry loss."""
    columns = zip(*(example.ids for example in batch), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len({*column}) == 1, columns))
    tokens = shared + sum(forward_tokens(example) - shared for example in batch)
    return tokens, sum(sum(example.loss_mask) for example in batch)


def products(config: Any, tokens: int, learned: int) -> Iterator[tuple[int, int, int, int]]:
    """(rows, in, out, how often) of a step's forward; backward has in and out exchanged."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    key_value = config.num_key_value_heads * config.head_dim
    yield tokens, hidden, hidden + 2 * key_value, layers
    yield tokens, hidden, hidden, layers
    yield tokens, hidden, 2 * inner, layers
    yield tokens, inner, hidden, layers
    yield learned, hidden, config.vocab_size, 1


def seconds_of(rows: int, inner: int, outer: int) -> float:
    """The time of the faster implementation, the best of a few attempts."""
    x = torch.randn(rows, inner, device=_DEVICE).bfloat16()
    weight = torch.randn(outer, inner, device=_DEVICE).bfloat16()
    implementations = (PackedLinear(weight), lambda x: functional.linear(x, weight))
    return min(_timed(multiply, x) for multiply in implementations for _ in range(_REPEATS + 1))


def _timed(multiply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> float:
    _wait()
    start = time.perf_counter()
    multiply(x)
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Wait until a GPU has finished its queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main(base: str, file: str, steps: str) -> None:
    config = AutoConfig.from_pretrained(base)
    renderer = Renderer(AutoTokenizer.from_pretrained(base), stop_ids=())
    examples = [renderer.render_example(e.messages) for e in load_examples(Path(file))]
    seconds = []
    for step in range(int(steps)):
        tokens, learned = rows(examples[step * BATCH : (step + 1) * BATCH])
        seconds.append(
            sum(
                often * (seconds_of(count, inner, outer) + seconds_of(count, outer, inner))
                for count, inner, outer, often in products(config, tokens, learned)
            )
        )
    say({"steps": seconds})


if __name__ == "__main__":
    main(*sys.argv[1:])
