"""The peak memory of a training run, before it starts.

An estimate from sizes alone: nothing is loaded, and torch is not needed. It counts the large parts
(weights packed for both directions, activations saved for the backward pass of the longest row,
gradients and moments of the adapter); a test compares it with measured runs. All sizes are bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from emojitune.training.config import LONG_EXAMPLE, TrainingConfig, data_parallel_threads

_PROCESS_BYTES = 400 * 10**6  # Python, torch, transformers and their own memory
_MIN_ROW_TOKENS, _MAX_ROW_TOKENS = 1024, 16384


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """The sizes of a base model.

    Attributes:
        layers: Decoder layers.
        hidden: Hidden size.
        inner: Intermediate size of the MLP.
        heads: Query heads.
        qkv: Columns of the fused linear for q, k and v.
        vocabulary: Tokens of the vocabulary.
    """

    layers: int
    hidden: int
    inner: int
    heads: int
    qkv: int
    vocabulary: int

    @property
    def frozen(self) -> int:
        """Number of weights of all linear layers."""
        attention = self.hidden * (self.qkv + self.hidden)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def trained(self) -> int:
        """Number of weights of an adapter of rank 1: in + out of each linear layer."""
        attention = 5 * self.hidden + self.qkv
        return self.layers * (attention + 3 * (self.hidden + self.inner))


def read_sizes(folder: Path) -> ModelSizes | None:
    """The sizes of the base model in a folder; None where config.json has other names for them."""
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
    """Number of an example's tokens that run through the model, and of its supervised ones."""

    tokens: int
    supervised: int


def model_bytes(sizes: ModelSizes, itemsize: int, *, gpu: bool = False) -> int:
    """Bytes of the process with the base model loaded.

    Args:
        itemsize: Bytes of a number of the model.
        gpu: Whether it is on a GPU, which multiplies in both directions by the same weights.
    """
    embedding_and_head = 3 * sizes.hidden * sizes.vocabulary
    return _PROCESS_BYTES + itemsize * ((1 if gpu else 2) * sizes.frozen + embedding_and_head)


def row_tokens(sizes: ModelSizes, itemsize: int, gpu_memory: int) -> int:
    """The length of packed rows, in tokens, on a GPU with `gpu_memory` bytes: the activations saved
    of one row take at most a quarter of that memory.

    `gpu_memory` is the total, not the free memory, since the length decides an adapter's last bits.
    On a CPU longer rows are not faster.
    """
    tokens = _MAX_ROW_TOKENS
    while (
        tokens > _MIN_ROW_TOKENS
        and 4 * itemsize * sizes.layers * _saved_activations(sizes) * tokens > gpu_memory
    ):
        tokens //= 2
    return tokens


def training_bytes(
    sizes: ModelSizes,
    config: TrainingConfig,
    lengths: Sequence[ExampleLength],
    itemsize: int,
    threads: int,
    *,
    fused: bool = False,
) -> tuple[int, list[int]]:
    """The peak of training beyond `model_bytes`, and the indices of the examples that cause it.

    Args:
        lengths: Of all examples.
        itemsize: Bytes of a number of the model.
        threads: The most threads that run at once, each of them on one of those examples.
        fused: Whether attention keeps no probabilities of short examples either; see attention.py.
    """
    threads_used = data_parallel_threads(config.batch_size, threads)
    rows = [
        _row_bytes(sizes, config, length, itemsize, threads_used, fused=fused) for length in lengths
    ]
    heaviest = nlargest(threads_used, range(len(rows)), key=rows.__getitem__)
    # Each weight with its gradient and two moments, in float32; its fused copies; its gradients
    # once a thread.
    adapter = sizes.trained * config.rank * (16 + 3 * itemsize + 8 * threads_used)
    return sum(rows[number] for number in heaviest) + adapter, heaviest


def _row_bytes(
    sizes: ModelSizes,
    config: TrainingConfig,
    example: ExampleLength,
    itemsize: int,
    threads_used: int,
    *,
    fused: bool,
) -> int:
    """Bytes for a row of such examples: a thread's part of a batch, or as many as a row holds."""
    longest = max(1, example.tokens)
    row = min(longest * -(-config.batch_size // threads_used), max(longest, config.row_tokens))
    supervised = row // longest * example.supervised
    # Attention probabilities are kept in every layer, and four times in float32 in one.
    probs = 0 if fused or longest > LONG_EXAMPLE else sizes.heads * row * longest
    attention = probs * (itemsize * sizes.layers + 16)
    logits = 3 * itemsize * sizes.vocabulary * supervised
    return itemsize * row * _saved_activations(sizes) * sizes.layers + attention + logits


def _saved_activations(sizes: ModelSizes) -> int:
    """Numbers that each layer saves of a token for the backward pass."""
    return 4 * sizes.hidden + 3 * sizes.qkv + 3 * sizes.inner
