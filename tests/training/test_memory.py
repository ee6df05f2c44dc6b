"""The estimate of what a run takes, and what is said when there is less."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emojitune.training import memory
from emojitune.training.config import TrainingConfig
from emojitune.training.memory import Longest, model_peak, sizes_of, training_peak

CONFIG = TrainingConfig(epochs=3, batch_size=16, learning_rate=4e-3, seed=1)
SMOLLM2 = memory.Sizes(30, 576, 1536, 9, 960, 49152)


def test_the_sizes_of_a_model_are_read_from_its_config(tiny_base: Path) -> None:
    assert sizes_of(tiny_base) == memory.Sizes(2, 32, 64, 4, 64, 365)


def test_a_config_that_says_it_otherwise_makes_no_estimate(tmp_path: Path) -> None:
    assert sizes_of(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 768}))
    assert sizes_of(tmp_path) is None


def test_parameters_are_counted_as_they_are() -> None:
    assert SMOLLM2.frozen == 106_168_320
    assert SMOLLM2.trained * CONFIG.rank == 4_884_480


def test_what_makes_a_run_larger_makes_the_estimate_larger() -> None:
    example = Longest(60, 5)
    usual = training_peak(SMOLLM2, CONFIG, example, 2, 2)
    assert usual < training_peak(SMOLLM2, replace(CONFIG, batch_size=32), example, 2, 2)
    assert usual < training_peak(SMOLLM2, replace(CONFIG, rank=64), example, 2, 2)
    assert usual < training_peak(SMOLLM2, CONFIG, Longest(2000, 5), 2, 2)
    assert usual < training_peak(SMOLLM2, CONFIG, Longest(60, 60), 2, 2)
    assert model_peak(SMOLLM2, 2) < model_peak(SMOLLM2, 4)
    cut = replace(CONFIG, max_tokens=60)
    assert training_peak(SMOLLM2, cut, Longest(9000, 5), 2, 2) == usual


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    unbounded = memory.available()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5000\n")
    assert unbounded is None or memory.available() is not None
    (tmp_path / "memory.max").write_text("10000\n")
    assert memory.available() == 5000
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 300\n")
    assert memory.available() == 5300
