"""The estimated memory of a run."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from emojitune.models.torch_environment import TRAINING_ENVIRONMENT
from emojitune.training import memory
from emojitune.training.config import TrainingConfig
from emojitune.training.memory import ExampleLength, model_bytes, read_sizes, training_bytes

CONFIG = TrainingConfig(epochs=3, batch_size=16, learning_rate=4e-3, seed=1)
SMOLLM2 = memory.ModelSizes(30, 576, 1536, 9, 960, 49152)


def test_the_sizes_of_a_model_are_read_from_its_config(tiny_base: Path) -> None:
    assert read_sizes(tiny_base) == memory.ModelSizes(2, 32, 64, 4, 64, 365)


def test_a_config_with_other_keys_makes_no_estimate(tmp_path: Path) -> None:
    assert read_sizes(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768}))
    assert read_sizes(tmp_path) is None


def test_parameters_are_counted_exactly() -> None:
    assert SMOLLM2.frozen == 106_168_320
    assert SMOLLM2.trained * CONFIG.rank == 4_884_480


def peak(
    config: TrainingConfig, *lengths: ExampleLength, threads: int = 2, fused: bool = False
) -> int:
    return training_bytes(SMOLLM2, config, lengths, 2, threads, fused=fused)[0]


def test_a_larger_run_has_a_larger_estimate() -> None:
    example = ExampleLength(60, 5)
    usual = peak(CONFIG, example, example)
    assert usual < peak(replace(CONFIG, batch_size=32), example, example)
    assert usual < peak(replace(CONFIG, rank=64), example, example)
    assert usual < peak(CONFIG, ExampleLength(2000, 5), example)
    assert usual < peak(CONFIG, ExampleLength(60, 60), example)
    assert model_bytes(SMOLLM2, 2) < model_bytes(SMOLLM2, 4)


def test_one_line_that_fills_the_context_does_not_multiply_the_memory_of_others() -> None:
    short, long = ExampleLength(60, 5), ExampleLength(8192, 5)
    one, two = (peak(CONFIG, *[long] * count, *[short] * 20) for count in (1, 2))
    assert 4e9 < one - peak(CONFIG, *[short] * 20) < 6e9
    assert 4e9 < two - one < 6e9, "each of two threads may have one"
    assert two == peak(CONFIG, *[long] * 20)
    assert training_bytes(SMOLLM2, CONFIG, [short, short, long], 2, 2)[1] == [2, 0]


def test_rows_are_as_long_as_the_memory_of_a_gpu_allows() -> None:
    larger = memory.ModelSizes(24, 2048, 8192, 32, 3072, 49152)
    assert [memory.row_tokens(larger, 2, gb * 10**9) for gb in (8, 24, 80, 141)] == [
        1024,
        2048,
        8192,
        16384,
    ]
    assert memory.row_tokens(SMOLLM2, 2, 24 * 10**9) == 8192
    # The activations saved of a row, without attention probabilities, fit into their quarter.
    config = replace(CONFIG, row_tokens=2048, batch_size=32)
    long, short = (
        training_bytes(larger, one, [ExampleLength(512, 0)], 2, 1, fused=True)[0]
        for one in (config, replace(config, row_tokens=1024))
    )
    assert 0 < long - short < 24 * 10**9 / 4


MEASURED = """
import sys
from pathlib import Path
from emojitune.models.torch_environment import import_libraries
import_libraries()
import torch
from emojitune.dataset.example import Message
from emojitune.models import adapter, loader
from emojitune.models.catalog import SMOLLM2_135M
from emojitune.models.download import fetch
from emojitune.settings import Settings
from emojitune.training import memory
from emojitune.training.batches import forward_tokens
from emojitune.training.checkpoint import CheckpointFolder
from emojitune.training.config import TrainingConfig
from emojitune.training.loop import train

words, count, short = map(int, sys.argv[1:4])
folder = fetch(SMOLLM2_135M, Settings())
precision = loader.choose_precision(Settings(device="cpu"))
model = loader.load_for_training(folder, precision)
asked, reply = " word" * words, Message("assistant", "(yes)")
questions = [f"{n}{asked}" for n in range(count)] + [str(n) for n in range(short)]
examples = [model.renderer.render_example([Message("user", one), reply]) for one in questions]
config = TrainingConfig(
    epochs=1, batch_size=count + short, learning_rate=1e-3, seed=1, max_tokens=8192
)
info = adapter.AdapterInfo("b", 16, 32.0)
list(train(model, precision.device, examples, config, CheckpointFolder(Path(sys.argv[4]), info)))
sizes, item = memory.read_sizes(folder), precision.dtype.itemsize
lengths = [memory.ExampleLength(forward_tokens(one), sum(one.loss_mask)) for one in examples]
training, _ = memory.training_bytes(sizes, config, lengths, item, torch.get_num_threads())
# Not getrusage: a process begins there with what its parent held when it was started.
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print((memory.model_bytes(sizes, item) + training) / peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux reports the peak there")
@pytest.mark.parametrize("counts", [("20", "16", "0"), ("900", "2", "0"), ("1500", "1", "7")])
def test_the_estimate_is_near_a_measured_run(tmp_path: Path, counts: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", MEASURED, *counts, str(tmp_path)]
    environment = {**os.environ, **TRAINING_ENVIRONMENT}
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert 0.8 < float(ran.stdout) < 1.4
