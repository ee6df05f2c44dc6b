"""How much memory a training run takes at its peak, and how much there is: before it starts.

An estimate from sizes alone: nothing is loaded, and torch is not needed. It counts what is large
(weights in both directions, what the way back needs of the longest row, gradients and moments of
the adapter) and is held against measured runs by a test.
"""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from emojitune.training.config import LONG_EXAMPLE, TrainingConfig, data_parallel_threads

_PROGRAM = 400 * 10**6  # Python, torch and transformers, and what they keep for themselves
_FEWEST_ROW_TOKENS, _MOST_ROW_TOKENS = 1024, 16384
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """Of a base model: layers, hidden size, intermediate size, heads, columns of q/k/v, words."""

    layers: int
    hidden: int
    inner: int
    heads: int
    qkv: int
    vocabulary: int

    @property
    def frozen(self) -> int:
        """Weights of all linear layers."""
        mixed = self.hidden * (self.qkv + self.hidden)
        return self.layers * (mixed + 3 * self.hidden * self.inner)

    @property
    def trained(self) -> int:
        """Numbers of an adapter of rank 1: in and out of each linear layer."""
        attention = 5 * self.hidden + self.qkv
        return self.layers * (attention + 3 * (self.hidden + self.inner))


def read_sizes(folder: Path) -> ModelSizes | None:
    """The sizes in a base model's folder; None where config.json names them otherwise."""
    try:
        values: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        hidden, heads = int(values["hidden_size"]), int(values["num_attention_heads"])
        keys = int(values.get("num_key_value_heads") or heads)
        return ModelSizes(
            layers=int(values["num_hidden_layers"]),
            hidden=hidden,
            inner=int(values.get("intermediate_size") or 4 * hidden),
            heads=heads,
            qkv=(heads + 2 * keys) * int(values.get("head_dim") or hidden // heads),
            vocabulary=int(values["vocab_size"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class ExampleLength:
    """Tokens of an example that are run through the model, and how many of them are learned."""

    tokens: int
    learned: int


def model_bytes(sizes: ModelSizes, item: int, *, gpu: bool = False) -> int:
    """Bytes of the program with the base model, whose numbers have `item` bytes.

    A GPU multiplies both ways by the same weights.
    """
    words = 3 * sizes.hidden * sizes.vocabulary
    return _PROGRAM + item * ((1 if gpu else 2) * sizes.frozen + words)


def row_tokens(sizes: ModelSizes, item: int, gpu_memory: int) -> int:
    """How long packed rows are on a GPU with so many bytes: what is kept of one for the way back
    takes at most a quarter of them.

    Of all its memory, not of what is free, since a row's length decides an adapter's last bits. On
    a processor longer rows are no quicker.
    """
    tokens = _MOST_ROW_TOKENS
    while (
        tokens > _FEWEST_ROW_TOKENS
        and 4 * item * sizes.layers * _saved_activations(sizes) * tokens > gpu_memory
    ):
        tokens //= 2
    return tokens


def training_bytes(
    sizes: ModelSizes,
    config: TrainingConfig,
    lengths: Sequence[ExampleLength],
    item: int,
    threads: int,
    *,
    fused: bool = False,
) -> tuple[int, list[int]]:
    """Bytes that training adds to that, with at most so many threads, and which of the examples
    are the reason: each thread may have one of them at the same time.

    Args:
        fused: Whether attention keeps no weights of short examples either; see attention.py.
    """
    shares = data_parallel_threads(config.batch_size, threads)
    rows = [_row(sizes, config, length, item, shares, fused=fused) for length in lengths]
    most = nlargest(shares, range(len(rows)), key=rows.__getitem__)
    # A number is there with its gradient and two moments; joined, and once a thread.
    adapter = sizes.trained * config.rank * (16 + 3 * item + 8 * shares)
    return sum(rows[number] for number in most) + adapter, most


def _row(
    sizes: ModelSizes,
    config: TrainingConfig,
    example: ExampleLength,
    item: int,
    shares: int,
    *,
    fused: bool,
) -> int:
    """Bytes for a row of such examples: as many as a thread has of a batch, or as it holds."""
    longest = max(1, example.tokens)
    row = min(longest * -(-config.batch_size // shares), max(longest, config.row_tokens))
    learned = row // longest * example.learned
    # The weights of attention are kept in every layer, and four times in float32 in one.
    weights = 0 if fused or longest > LONG_EXAMPLE else sizes.heads * row * longest
    attention = weights * (item * sizes.layers + 16)
    logits = 3 * item * sizes.vocabulary * learned
    return item * row * _saved_activations(sizes) * sizes.layers + attention + logits


def _saved_activations(sizes: ModelSizes) -> int:
    """How many numbers of a token are kept in each layer, for the way back."""
    return 4 * sizes.hidden + 3 * sizes.qkv + 3 * sizes.inner


def available_bytes() -> int | None:
    """Bytes that this process may still take; None where the system does not tell."""
    found = [amount for amount in (_free_memory(), _free_of_group()) if amount is not None]
    return min(found, default=None)


def _free_memory() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return None


def _free_of_group() -> int | None:
    """What a container's limit leaves; pages of files count as free, as for the kernel."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):
            most = int((_CGROUP / limit).read_text(encoding="ascii"))
            used = int((_CGROUP / usage).read_text(encoding="ascii"))
            return max(0, most - used + _file_pages(_CGROUP / limit))
    return None


def _file_pages(limit: Path) -> int:
    with suppress(OSError, ValueError):
        for line in (limit.parent / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(count)
    return 0
