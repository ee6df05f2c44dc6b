import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import float32

from emojitune.dataset.example import Message
from emojitune.errors import TrainingError
from emojitune.models import loader
from emojitune.models.adapter import AdapterInfo
from emojitune.models.loader import Precision
from emojitune.models.renderer import RenderedExample
from emojitune.training.checkpoint import CheckpointFolder
from emojitune.training.config import TrainingConfig
from emojitune.training.events import (
    CheckpointSaved,
    ForwardChosen,
    StepCompleted,
    TrainingEvent,
    ValidationCompleted,
)
from emojitune.training.loop import lr_schedule, train

CONFIG = TrainingConfig(epochs=3, batch_size=4, learning_rate=1e-2, seed=7, rank=4, alpha=8.0)
CHATS = [("What a day", "(party)"), ("My dog is tired.", "(yawn)"), ("what is going on", "(devil)")]


def events(
    base: Path,
    folder: Path,
    *,
    config: TrainingConfig = CONFIG,
    stop_after: int | None = None,
    weight: int | None = None,
    validation: bool = False,
    every: int = 1000,
    precision: Precision | None = None,
) -> list[TrainingEvent]:
    """Train the tiny model on ten examples; all events, or those up to a number of steps.

    A checkpoint is saved at the end of each epoch, and after every `every` steps.
    """
    steps = count(1)
    precision = precision or float32()
    model = loader.load_for_training(base, precision)
    examples: list[RenderedExample] = [
        model.renderer.render_example(
            [
                Message("user", f"{CHATS[i % 3][0]} {i}"),
                Message("assistant", CHATS[i % 3][1], weight),
            ]
        )
        for i in range(10)
    ]
    yielded: list[TrainingEvent] = []
    for event in train(
        model,
        precision.device,
        examples,
        config,
        CheckpointFolder(folder, AdapterInfo("tiny", rank=4, alpha=8.0)),
        validation=examples[:3] if validation else (),
        should_save=lambda: next(steps) % every == 0,
    ):
        yielded.append(event)
        if isinstance(event, StepCompleted) and event.step == stop_after:
            break
    return yielded


def final_folder(yielded: list[TrainingEvent]) -> Path:
    last = yielded[-1]
    assert isinstance(last, CheckpointSaved)
    return last.adapter


def final_adapter(yielded: list[TrainingEvent]) -> dict[str, torch.Tensor]:
    return load_file(final_folder(yielded) / "adapter_model.safetensors")


def test_the_loss_falls_and_every_epoch_leaves_a_checkpoint(
    tiny_base: Path, tmp_path: Path
) -> None:
    yielded = events(tiny_base, tmp_path)
    steps = [event for event in yielded if isinstance(event, StepCompleted)]
    assert [step.step for step in steps] == list(range(1, 10))
    assert steps[0].total_steps == 9
    assert sum(s.train_loss for s in steps[-3:]) < 0.8 * sum(s.train_loss for s in steps[:3])
    assert [e.epoch for e in yielded if isinstance(e, CheckpointSaved)] == [1, 2, 3]


def test_the_same_seed_makes_the_same_adapter(tiny_base: Path, tmp_path: Path) -> None:
    first = final_adapter(events(tiny_base, tmp_path / "first"))
    second = final_adapter(events(tiny_base, tmp_path / "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_gpu_makes_the_same_adapter_twice(
    tiny_base: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    precision = Precision(torch.device("cuda"), dtype, "as requested")
    first, second = (
        final_adapter(events(tiny_base, tmp_path / name, precision=precision)) for name in "ab"
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    on_processor = final_adapter(events(tiny_base, tmp_path / "c"))
    for name, tensor in on_processor.items():
        torch.testing.assert_close(first[name], tensor, atol=0.05, rtol=0.05)


def reports(yielded: list[TrainingEvent]) -> list[TrainingEvent]:
    return [event for event in yielded if isinstance(event, StepCompleted | ValidationCompleted)]


@pytest.mark.parametrize("stop_after", range(1, 10))
def test_a_run_interrupted_at_any_step_ends_as_an_uninterrupted_one(
    tiny_base: Path, tmp_path: Path, stop_after: int
) -> None:
    uninterrupted = events(tiny_base, tmp_path / "whole", validation=True)
    cut = tmp_path / "cut"
    first = events(tiny_base, cut, stop_after=stop_after, validation=True, every=1)
    resumed = events(tiny_base, cut, validation=True)
    assert resumed[0] == ForwardChosen("the fast path for Llama-like models")
    if stop_after > 1:
        # Only the step that was interrupted before its checkpoint is repeated.
        again = reports(first).index(reports(resumed)[0])
        assert reports(first)[again:] == reports(resumed)[: len(reports(first)) - again]
        assert reports(first)[:again] + reports(resumed) == reports(uninterrupted)
        assert isinstance(resumed[1], StepCompleted)
        assert resumed[1].step == stop_after - 1
    a, b = (final_folder(yielded) for yielded in (uninterrupted, resumed))
    for name in ("adapter_model.safetensors", "adapter_config.json", "emojitune.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_a_checkpoint_within_an_epoch_has_its_step_and_epoch(
    tiny_base: Path, tmp_path: Path
) -> None:
    yielded = events(tiny_base, tmp_path, every=2)
    saved = [event for event in yielded if isinstance(event, CheckpointSaved)]
    assert [(e.step, e.epoch, e.ends_epoch) for e in saved] == [
        (2, 1, False), (3, 1, True), (5, 2, False), (6, 2, True), (8, 3, False), (9, 3, True),
    ]  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"step-8", "step-9"}, "the rest has gone"


@pytest.mark.parametrize(
    "tear",
    [
        lambda folder: (folder / "sha256.json").unlink(),
        lambda folder: (folder / "adapter" / "adapter_model.safetensors").unlink(),
        lambda folder: flip_a_byte(folder / "adapter" / "adapter_model.safetensors"),
        lambda folder: flip_a_byte(folder / "optimizer.safetensors"),
        lambda folder: os.truncate(folder / "optimizer.safetensors", 100),
        lambda folder: os.truncate(folder / "position.json", 10),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before_it(
    tiny_base: Path, tmp_path: Path, tear: Callable[[Path], None]
) -> None:
    uninterrupted = final_adapter(events(tiny_base, tmp_path / "whole"))
    cut = tmp_path / "cut"
    events(tiny_base, cut, stop_after=6, every=1)
    tear(cut / "step-5")
    resumed_events = events(tiny_base, cut)
    assert isinstance(resumed_events[1], StepCompleted)
    assert resumed_events[1].step == 4
    resumed = final_adapter(resumed_events)
    assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)


def test_a_run_does_not_resume_on_another_base_model(tiny_base: Path, tmp_path: Path) -> None:
    events(tiny_base, tmp_path, stop_after=4)
    model = loader.load_for_training(tiny_base, float32())
    example = model.renderer.render_example([Message("user", "a"), Message("assistant", "(yawn)")])
    checkpoints = CheckpointFolder(tmp_path, AdapterInfo("another", 4, 8.0))
    with pytest.raises(TrainingError, match="began on the base model tiny") as error:
        list(train(model, torch.device("cpu"), [example] * 10, CONFIG, checkpoints))
    assert error.value.code == "base_model_changed"


@pytest.mark.parametrize("entered", [0, 1])  # before anything is written, or before the rename
def test_a_checkpoint_that_the_fence_refuses_is_not_saved(
    tiny_base: Path, tmp_path: Path, entered: int
) -> None:
    calls = count()

    def fence() -> AbstractContextManager[None]:
        if next(calls) == entered:
            raise PermissionError
        return nullcontext()

    model = loader.load_for_training(tiny_base, float32())
    example = model.renderer.render_example([Message("user", "a"), Message("assistant", "(yawn)")])
    checkpoints = CheckpointFolder(tmp_path, AdapterInfo("tiny", 4, 8.0), fence=fence)
    with pytest.raises(PermissionError):
        list(train(model, torch.device("cpu"), [example] * 10, CONFIG, checkpoints))
    assert list(tmp_path.iterdir()) == []


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_validation_loss_is_reported_each_epoch(tiny_base: Path, tmp_path: Path) -> None:
    yielded = events(tiny_base, tmp_path, validation=True)
    scores = [event for event in yielded if isinstance(event, ValidationCompleted)]
    assert [score.step for score in scores] == [3, 6, 9]
    assert scores[-1].loss < scores[0].loss
    assert 0.0 <= scores[-1].token_accuracy <= 1.0


def test_a_file_without_supervised_tokens_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weight 0"):
        events(tiny_base, tmp_path, weight=0)


def test_a_loss_that_is_not_a_number_ends_the_run(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "emojitune.training.gradients.summed_cross_entropy",
        lambda logits, targets: (logits.sum() * float("nan"), targets.new_zeros(())),
    )
    with pytest.raises(TrainingError, match="learning_rate_multiplier"):
        events(tiny_base, tmp_path)


def test_the_learning_rate_rises_then_falls_to_nearly_nothing() -> None:
    shares = [lr_schedule(step, 100, 0.05) for step in range(1, 101)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert 0 < shares[-1] < 0.02
