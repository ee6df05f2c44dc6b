"""Adapters to measure with: one of seeded noise, one tuned for an epoch."""

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.contenders import BATCH, RANK
from emojitune.dataset.statistics import closed_vocabulary
from emojitune.dataset.validation import load_examples
from emojitune.models import adapter, loader, lora
from emojitune.models.catalog import SMOLLM2_135M
from emojitune.settings import Settings
from emojitune.training.checkpoint import CheckpointFolder
from emojitune.training.config import TrainingConfig
from emojitune.training.events import CheckpointSaved
from emojitune.training.loop import train

INFO = adapter.AdapterInfo(SMOLLM2_135M.name, rank=RANK, alpha=2.0 * RANK)


def noisy(base: Path, folder: Path, *, std: float) -> Path:
    """An adapter with A sides initialized as in a job, and B sides of noise instead of zero, so
    that no part's gradient is zero. Two calls make the same adapter."""
    module = loader.load_hf(base, loader.choose_precision(Settings(device="cpu"))).module
    lora.attach(module, rank=INFO.rank, alpha=INFO.alpha, seed=1)
    state, generator = lora.adapter_state(module), torch.Generator().manual_seed(2)
    for name, tensor in state.items():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(tensor, std=std, generator=generator)
    adapter.write(folder, state, INFO)
    return folder


def tuned(base: Path, folder: Path, file: Path) -> Path:
    """An adapter trained for an epoch of `file`, with a job's own numbers."""
    precision = loader.choose_precision(Settings(device="cpu"))
    model = loader.load_for_training(base, precision)
    examples = load_examples(file)
    config = TrainingConfig(
        epochs=1,
        batch_size=BATCH,
        learning_rate=SMOLLM2_135M.learning_rate,
        seed=1,
        rank=INFO.rank,
        alpha=INFO.alpha,
    )
    events = train(
        model,
        precision.device,
        [model.renderer.render_example(example.messages) for example in examples],
        config,
        CheckpointFolder(folder, replace(INFO, vocabulary=closed_vocabulary(examples))),
    )
    [saved] = [event.adapter for event in events if isinstance(event, CheckpointSaved)]
    return saved
