"""The model of the benchmark: tuned through the server, and exported for other engines.

A home that has a tuned model keeps it; else the main job's training runs there once.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, logging

from benchmarks import gguf_file
from benchmarks.engine import Tuned
from emojitune.models import adapter, lora
from emojitune.models.catalog import SMOLLM2_135M, WheelSource
from emojitune.models.download import fetch
from emojitune.settings import Settings
from emojitune.store.database import open_database
from emojitune.store.models import FineTunedModel, ModelStore
from emojitune.workflow import fine_tune
from emojitune.workflow.provider import connect

Q8_0 = gguf.GGMLQuantizationType.Q8_0


def tuned_model(home: Path, file: Path, exports: Path, tokenizer: Any, console: Console) -> Tuned:
    """The newest model of `home`, trained on `file` if there is none, with new exports."""
    found = _newest(home) or _train(home, file, console)
    console.print(f"Exporting {found.name}", highlight=False)
    logging.disable_progress_bar()
    settings = Settings(home=home)
    module = AutoModelForCausalLM.from_pretrained(
        fetch(SMOLLM2_135M, settings), dtype=torch.bfloat16
    )
    info, state = adapter.read(settings.adapters / found.adapter)
    lora.merge(module, state, scale=info.scale)
    tuned = Tuned(
        home, found.name, exports / "merged", exports / "q4_1.gguf", exports / "q8_0.gguf"
    )
    module.save_pretrained(tuned.merged)
    tokenizer.save_pretrained(tuned.merged)
    assert isinstance(SMOLLM2_135M.source, WheelSource)
    original = gguf_file.of_wheel(SMOLLM2_135M.source, exports)
    weights = dict(module.named_parameters())  # the output head, tied, is not named twice
    gguf_file.with_weights(original, weights, tuned.q4_1)
    gguf_file.with_weights(original, weights, tuned.q8_0, Q8_0)
    return tuned


def _newest(home: Path) -> FineTunedModel | None:
    database = open_database(home)
    try:
        return next((m for m in ModelStore(database, "default").list() if m.step is None), None)
    finally:
        database.close()


def _train(home: Path, file: Path, console: Console) -> FineTunedModel:
    console.print(f"Training on {file} in {home}", highlight=False)
    with connect("local", Settings(home=home)) as connection:
        client = connection.client
        uploaded = fine_tune.upload(client, file)
        job = fine_tune.create_job(
            client, training_file=uploaded.id, model="gpt-3.5-turbo", n_epochs=3, seed=1
        )
        for _ in fine_tune.follow(client, job.id):
            pass
        fine_tune.fine_tuned_model(client.fine_tuning.jobs.retrieve(job.id))
    found = _newest(home)
    assert found is not None
    return found
