"""How far results lie from those of a reference. Tensors in, plain numbers out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Gradients = tuple[float, Mapping[str, Tensor]]
"""A batch's mean loss in nats, and its gradients by the parameters' names."""


@dataclass(frozen=True, slots=True)
class OfTraining:
    """As shares of what the reference has: its loss, the norm of its whole gradient."""

    loss: float
    gradient: float


@dataclass(frozen=True, slots=True)
class OfChat:
    """Between log-probabilities, in nats.

    Attributes:
        mean: Over all tokens of the vocabulary, behind all places.
        largest: Of them; far from likely tokens it is largest, and matters least.
        first: The largest for a token that the reference puts first.
    """

    mean: float
    largest: float
    first: float


@dataclass(frozen=True, slots=True)
class OfReplies:
    """Of labels chosen as replies, from the best of all labels by the reference.

    Attributes:
        prompts: How many were answered.
        equal: How many with the best label.
        behind: For each other, how far below the best its label lies by the reference, in nats.
    """

    prompts: int
    equal: int
    behind: tuple[float, ...]


def of_training(found: Gradients, expected: Gradients) -> OfTraining:
    (loss, mine), (expected_loss, plain) = found, expected
    if mine.keys() != plain.keys():
        raise ValueError(f"These tensors are on one side only: {mine.keys() ^ plain.keys()}")
    off = torch.stack([(mine[name] - plain[name]).float().norm() for name in plain]).norm()
    whole = torch.stack([gradient.float().norm() for gradient in plain.values()]).norm()
    return OfTraining(abs(loss / expected_loss - 1), float(off / whole))


def of_chat(found: Sequence[Tensor], expected: Sequence[Tensor]) -> OfChat:
    """Each a tensor (places, V) for each prompt."""
    plain = torch.cat(list(expected))
    off = (torch.cat(list(found)) - plain).abs()
    first = off.gather(1, plain.argmax(-1, keepdim=True))
    return OfChat(float(off.mean()), float(off.max()), float(first.max()))


def of_replies(chosen: Sequence[int], joints: Sequence[Tensor]) -> OfReplies:
    """Places of the chosen labels, and what the reference gives to each label, (labels,)."""
    gaps = [float(joint.max() - joint[place]) for place, joint in zip(chosen, joints, strict=True)]
    behind = tuple(gap for gap in gaps if gap > 0.0)
    return OfReplies(len(gaps), len(gaps) - len(behind), behind)
