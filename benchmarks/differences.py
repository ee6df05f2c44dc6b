"""Errors of results against a reference. Tensors in, plain numbers out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Gradients = tuple[float, Mapping[str, Tensor]]
"""A batch's mean loss in nats, and its gradients by the parameters' names."""


@dataclass(frozen=True, slots=True)
class OfTraining:
    """Errors of training, relative to the reference: its loss, the norm of its entire gradient."""

    loss: float
    gradient: float


@dataclass(frozen=True, slots=True)
class OfChat:
    """Errors of log-probabilities, in nats.

    Attributes:
        mean: The mean error over all tokens of the vocabulary, after all positions.
        largest: The largest of them; it occurs at improbable tokens, where it matters least.
        first: The largest at a token that the reference ranks first.
    """

    mean: float
    largest: float
    first: float


@dataclass(frozen=True, slots=True)
class OfReplies:
    """Errors of labels chosen as replies, against the reference's best of all labels.

    Attributes:
        prompts: The number of prompts.
        equal: The number of them with the best label.
        behind: For each other prompt the reference's distance from the best label, in nats.
    """

    prompts: int
    equal: int
    behind: tuple[float, ...]


def of_training(found: Gradients, expected: Gradients) -> OfTraining:
    (loss, mine), (expected_loss, plain) = found, expected
    if mine.keys() != plain.keys():
        raise ValueError(f"These tensors are on one side only: {mine.keys() ^ plain.keys()}")
    off = torch.stack([(mine[name] - plain[name]).float().norm() for name in plain]).norm()
    norm = torch.stack([gradient.float().norm() for gradient in plain.values()]).norm()
    return OfTraining(abs(loss / expected_loss - 1), float(off / norm))


def of_chat(found: Sequence[Tensor], expected: Sequence[Tensor]) -> OfChat:
    """The errors of log-probabilities, a tensor (positions, V) for each prompt."""
    plain = torch.cat(list(expected))
    off = (torch.cat(list(found)) - plain).abs()
    first = off.gather(1, plain.argmax(-1, keepdim=True))
    return OfChat(float(off.mean()), float(off.max()), float(first.max()))


def of_replies(chosen: Sequence[int], joints: Sequence[Tensor]) -> OfReplies:
    """The errors of labels chosen by index, given the reference's scores of all, (labels,)."""
    gaps = [float(joint.max() - joint[place]) for place, joint in zip(chosen, joints, strict=True)]
    behind = tuple(gap for gap in gaps if gap > 0.0)
    return OfReplies(len(gaps), len(gaps) - len(behind), behind)
