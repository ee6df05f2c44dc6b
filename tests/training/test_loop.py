from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_model import trainable_tiny

from emojitune.dataset.example import Message
from emojitune.errors import TrainingError
from emojitune.models.adapter import AdapterInfo
from emojitune.models.chat_template import Rendered
from emojitune.training.checkpoint import CheckpointFolder
from emojitune.training.config import TrainingConfig
from emojitune.training.events import (
    CheckpointSaved,
    ForwardChosen,
    StepCompleted,
    TrainingEvent,
    ValidationCompleted,
)
from emojitune.training.loop import schedule, train

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
) -> list[TrainingEvent]:
    """Train the tiny model on ten examples; all events, or those up to a number of steps."""
    model = trainable_tiny(base)
    examples: list[Rendered] = [
        model.renderer.render_example(
            [
                Message("user", f"{CHATS[i % 3][0]} {i}"),
                Message("assistant", CHATS[i % 3][1], weight),
            ]
        )
        for i in range(10)
    ]
    found: list[TrainingEvent] = []
    for event in train(
        model,
        torch.device("cpu"),
        examples,
        config,
        CheckpointFolder(folder, AdapterInfo("tiny", rank=4, alpha=8.0)),
        validation=examples[:3] if validation else (),
    ):
        found.append(event)
        if isinstance(event, StepCompleted) and event.step == stop_after:
            break
    return found


def final_adapter(found: list[TrainingEvent]) -> dict[str, torch.Tensor]:
    last = found[-1]
    assert isinstance(last, CheckpointSaved)
    return load_file(last.adapter / "adapter_model.safetensors")


def test_the_loss_falls_and_every_epoch_leaves_a_checkpoint(
    tiny_base: Path, tmp_path: Path
) -> None:
    found = events(tiny_base, tmp_path)
    steps = [event for event in found if isinstance(event, StepCompleted)]
    assert [step.step for step in steps] == list(range(1, 10))
    assert steps[0].total_steps == 9
    assert sum(s.train_loss for s in steps[-3:]) < 0.8 * sum(s.train_loss for s in steps[:3])
    assert [e.epoch for e in found if isinstance(e, CheckpointSaved)] == [1, 2, 3]


def test_the_same_seed_makes_the_same_adapter(tiny_base: Path, tmp_path: Path) -> None:
    first = final_adapter(events(tiny_base, tmp_path / "first"))
    second = final_adapter(events(tiny_base, tmp_path / "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(tiny_base: Path, tmp_path: Path) -> None:
    whole = final_adapter(events(tiny_base, tmp_path / "whole"))
    events(tiny_base, tmp_path / "cut", stop_after=5)  # in the middle of the second epoch
    rest = events(tiny_base, tmp_path / "cut")
    assert rest[0] == ForwardChosen("the fast path for Llama-like models")
    first = rest[1]
    assert isinstance(first, StepCompleted)
    assert first.step == 4, "it goes on behind the first epoch's checkpoint"
    resumed = final_adapter(rest)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_validation_loss_comes_each_epoch(tiny_base: Path, tmp_path: Path) -> None:
    found = events(tiny_base, tmp_path, validation=True)
    scores = [event for event in found if isinstance(event, ValidationCompleted)]
    assert [score.step for score in scores] == [3, 6, 9]
    assert scores[-1].loss < scores[0].loss
    assert 0.0 <= scores[-1].token_accuracy <= 1.0


def test_a_file_in_which_nothing_is_learned_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="weight 0"):
        events(tiny_base, tmp_path, weight=0)


def test_a_loss_that_is_no_number_ends_the_run(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "emojitune.training.gradients.summed_cross_entropy",
        lambda logits, targets: (logits.sum() * float("nan"), targets.new_zeros(())),
    )
    with pytest.raises(TrainingError, match="learning_rate_multiplier"):
        events(tiny_base, tmp_path)


def test_the_learning_rate_rises_then_falls_to_nearly_nothing() -> None:
    shares = [schedule(step, 100, 0.05) for step in range(1, 101)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert 0 < shares[-1] < 0.02
