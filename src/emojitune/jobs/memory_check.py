"""Refuses a job that cannot fit into memory, before it takes what other processes need."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from emojitune.dataset.rules import abbreviate_lines
from emojitune.errors import TrainingError
from emojitune.models import available_memory
from emojitune.models.loader import Precision
from emojitune.models.renderer import RenderedExample
from emojitune.training import memory
from emojitune.training.attention import has_fused_attention
from emojitune.training.batches import forward_tokens, supervised_tokens
from emojitune.training.config import TrainingConfig


class MemoryCheck:
    """Compares what the base model in `folder` needs with free memory, if its sizes are known."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self._sizes = memory.read_sizes(folder)
        self._precision = precision
        self._itemsize = precision.dtype.itemsize
        self._gpu = precision.device.type == "cuda"
        self._fused = has_fused_attention(precision.device, precision.dtype)
        self._model = (
            memory.model_bytes(self._sizes, self._itemsize, gpu=self._gpu) if self._sizes else 0
        )

    def with_row_tokens(self, config: TrainingConfig) -> TrainingConfig:
        """The config with the row length set: longer rows are faster with fused attention."""
        if self._sizes is None or not self._fused:
            return config
        total = torch.cuda.mem_get_info(self._precision.device)[1]
        return replace(config, row_tokens=memory.row_tokens(self._sizes, self._itemsize, total))

    def before_loading(self) -> None:
        """Raise TrainingError when not even the base model fits."""
        free = self._free()
        if free is not None and self._model > free:
            raise _refused(self._model, free, "the base model alone", "Take a smaller base model")

    def before_training(
        self, config: TrainingConfig, examples: Sequence[RenderedExample], lines: Sequence[int]
    ) -> str | None:
        """Estimate the memory of the run, in words.

        Args:
            lines: Line numbers of the first of the examples, those of the training file.

        Raises:
            TrainingError: Less memory is free.
        """
        if self._sizes is None:
            return None
        lengths = [
            memory.ExampleLength(forward_tokens(one), supervised_tokens(one)) for one in examples
        ]
        threads = 1 if self._gpu else torch.get_num_threads()
        more, heaviest = memory.training_bytes(
            self._sizes, config, lengths, self._itemsize, threads, fused=self._fused
        )
        free = self._free()
        if free is not None and more > free:
            in_file = sorted(number for number in heaviest if number < len(lines))
            tokens = max(lengths[number].tokens for number in heaviest)
            why = f"batch_size {config.batch_size} and a longest example of {tokens} tokens"
            advice = "Use a smaller batch_size, shorten the longest examples"
            if in_file:
                advice += f" ({abbreviate_lines([lines[number] for number in in_file])})"
            raise _refused(self._model + more, self._model + free, why, advice)
        return f"Memory: about {(self._model + more) / 1e9:.1f} GB at the peak"

    def _free(self) -> int | None:
        if self._gpu:
            return torch.cuda.mem_get_info(self._precision.device)[0]
        return available_memory.available_bytes()


def _refused(needed: int, free: int, why: str, advice: str) -> TrainingError:
    return TrainingError(
        f"The job does not fit into memory: it would take about {needed / 1e9:.1f} GB ({why}), and "
        f"{free / 1e9:.1f} GB are available. {advice}, or free some memory, and create the job "
        "again.",
        code="out_of_memory",
    )
