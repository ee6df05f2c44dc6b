"""The forward pass of training: the interface, and the implementation that fits a loaded model."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from emojitune.models.loader import LoadedHF, LoadedLlama, TrainableModel
from emojitune.training.batches import Pack


class Forward(Protocol):
    """From a row of tokens to logits, differentiable by the leaves. V is the vocabulary's size."""

    state: Mapping[str, Tensor]
    """The trainable tensors, in float32, by name: `<layer>.lora_A` and `<layer>.lora_B`."""

    @property
    def name(self) -> str:
        """The implementation in words, for the job's events."""
        ...

    def leaves(self) -> list[Tensor]:
        """The tensors to differentiate by, with the values of `state`; threads may share them."""
        ...

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        """Logits at the `logits_indices` of a row, (len(logits_indices), V)."""
        ...

    def assign_grads(self, grads: Sequence[Tensor]) -> None:
        """Set `grad` of each tensor of `state` from the gradients of the leaves, in float32.

        Gradients of `state` are contiguous: torch's fused optimizers ignore strides.
        """
        ...


def attach_lora(model: TrainableModel, *, rank: int, alpha: float, seed: int) -> Forward:
    """Attach LoRA layers to `model`, and return the forward pass through both.

    Args:
        rank: R, the rank of the updates.
        alpha: Updates are scaled by alpha / rank.
        seed: Of the initial LoRA tensors.
    """
    match model:
        case LoadedLlama():
            from emojitune.training.llama_forward import LlamaForward

            return LlamaForward(model.llama, rank=rank, alpha=alpha, seed=seed)
        case LoadedHF():
            # Imported only here: transformers' models take most of a second.
            from emojitune.training.hf_forward import HFForward

            return HFForward(model.module, rank=rank, alpha=alpha, seed=seed)
