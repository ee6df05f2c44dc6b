"""The training loop. Knows tokens and tensors; no SQL, no HTTP, no printing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite

import torch
from torch import Tensor, nn

from emojitune.errors import TrainingError
from emojitune.models import lora
from emojitune.models.loader import TrainableModel
from emojitune.models.renderer import RenderedExample
from emojitune.training.adam import Adam
from emojitune.training.batches import shuffled_batches, supervised_tokens
from emojitune.training.checkpoint import CheckpointFolder, Position
from emojitune.training.config import TrainingConfig
from emojitune.training.events import (
    ForwardChosen,
    StepCompleted,
    TrainingEvent,
    ValidationCompleted,
)
from emojitune.training.forward import attach_lora
from emojitune.training.gradients import ThreadedGradients, evaluate
from emojitune.training.losses import LabelSmoothing


def train(
    model: TrainableModel,
    device: torch.device,
    examples: Sequence[RenderedExample],
    config: TrainingConfig,
    checkpoints: CheckpointFolder,
    *,
    validation: Sequence[RenderedExample] = (),
    initial: Mapping[str, Tensor] | None = None,
    should_save: Callable[[], bool] = lambda: False,
) -> Iterator[TrainingEvent]:
    """Train LoRA layers of `model`, in place, and yield events; the caller may stop at any of them.

    Resumes from the newest of `checkpoints`, if an earlier call with the same arguments left any,
    and reports its last step again: a run that was interrupted anywhere ends with the same adapter
    as one that was not. Each epoch ends with a checkpoint.

    Args:
        device: Of the model.
        examples: None longer than `config.max_tokens`: the caller truncates, and reports it.
        validation: Examples to score after each epoch, of the same lengths.
        initial: Tensors of an adapter to continue from, by name, instead of newly drawn ones.
        should_save: Called after each step within an epoch: whether to save a checkpoint now.

    Raises:
        TrainingError: No token of `examples` carries loss, the loss is no longer a number, or the
            checkpoint is of another base model.
        StorageError: A checkpoint could not be written.
    """
    longest = max(len(example.ids) for example in (*examples, *validation))
    assert longest <= config.max_tokens, f"{longest} tokens; `batches.truncate` cuts an example"
    if not any(map(supervised_tokens, examples)):
        raise _nothing_to_learn(config)
    forward = attach_lora(model, rank=config.rank, alpha=config.alpha, seed=config.seed)
    yield ForwardChosen(forward.name)
    if initial is not None:
        lora.load_adapter_state(forward.state, initial)
    parameters = list(forward.state.values())
    optimizer = Adam(forward.state)
    saved = checkpoints.restore(forward.state, optimizer)
    yield from saved.events() if saved else ()
    done_epochs, step = (saved.position.epochs, saved.position.steps) if saved else (0, 0)
    total_steps = count_steps(len(examples), config)

    smoothing = LabelSmoothing(examples, config.smoothing) if config.smoothing else None
    with ThreadedGradients(
        forward, device, config.batch_size, config.row_tokens, smoothing
    ) as gradients:
        for epoch in range(done_epochs, config.epochs):
            batches = shuffled_batches(examples, config.batch_size, config.seed, epoch)
            for batch in batches[step - epoch * len(batches) :]:
                step += 1
                learning_rate = config.learning_rate * lr_schedule(step, total_steps, config.warmup)
                batch_loss = gradients.backward(batch)
                if not isfinite(batch_loss.loss):
                    raise _diverged(step, config)
                nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step(learning_rate)
                report = StepCompleted(
                    step=step,
                    total_steps=total_steps,
                    epoch=epoch + 1,
                    train_loss=batch_loss.loss,
                    token_accuracy=batch_loss.accuracy,
                    learning_rate=learning_rate,
                    tokens=sum(len(example.ids) for example in batch),
                    ends_epoch=step % len(batches) == 0,
                )
                yield report
                if not report.ends_epoch and should_save():
                    yield checkpoints.save(forward.state, optimizer, Position(epoch, step, report))
            validated = None
            if validation:
                batch_loss = evaluate(forward, device, validation, config.row_tokens)
                validated = ValidationCompleted(step, batch_loss.loss, batch_loss.accuracy)
                yield validated
            end = Position(epoch + 1, step, report, validated)
            yield checkpoints.save(forward.state, optimizer, end)


def count_steps(examples: int, config: TrainingConfig) -> int:
    """Optimizer steps of an entire run."""
    return -(-examples // config.batch_size) * config.epochs


def lr_schedule(step: int, total_steps: int, warmup: float) -> float:
    """Factor of the peak learning rate at `step` (from 1): linear warmup, then linear decay.

    Args:
        warmup: Share of all steps over which it rises; at least one step.
    """
    rising = max(1, round(warmup * total_steps))
    if step <= rising:
        return step / rising
    return (total_steps - step + 1) / (total_steps - rising + 1)


def _nothing_to_learn(config: TrainingConfig) -> TrainingError:
    return TrainingError(
        "Training needs assistant tokens to learn, and in this file none is left: every assistant "
        f"message has weight 0, or lies beyond the first {config.max_tokens} tokens of its "
        "example. Give at least one assistant message weight 1, or shorten the examples.",
        code="invalid_training_file",
        param="training_file",
    )


def _diverged(step: int, config: TrainingConfig) -> TrainingError:
    return TrainingError(
        f"The training loss must be a number, and at step {step} it no longer is. The learning "
        f"rate of {config.learning_rate:g} is too high for this data: request a smaller "
        "learning_rate_multiplier.",
        code="training_diverged",
    )
