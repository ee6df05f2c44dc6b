"""Ways through a model with LoRA layers: the fast one where it fits, else the model's own."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from emojitune.models.loader import LoadedHF, LoadedLlama, TrainableModel
from emojitune.training.batches import Pack


class Forward(Protocol):
    """A row of tokens to logits, differentiable by its leaves."""

    state: Mapping[str, Tensor]
    """The trainable tensors, in float32, by name: `<layer>.lora_A` and `<layer>.lora_B`."""

    @property
    def name(self) -> str: ...

    def leaves(self) -> list[Tensor]:
        """The tensors to differentiate by, once a step; threads may share them."""
        ...

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        """Logits at the places of a row, (places, V)."""
        ...

    def assign_grads(self, grads: Sequence[Tensor]) -> None:
        """Set the gradients of `state` from those of the leaves, in float32.

        They must be contiguous: torch's fused optimizers do not look at strides.
        """
        ...


def attach_lora(model: TrainableModel, *, rank: int, alpha: float, seed: int) -> Forward:
    """LoRA layers for `model`, and the best way through both."""
    match model:
        case LoadedLlama():
            from emojitune.training.llama_forward import LlamaForward

            return LlamaForward(model.llama, rank=rank, alpha=alpha, seed=seed)
        case LoadedHF():
            # Imported only here: transformers' models take most of a second.
            from emojitune.training.hf_forward import HFForward

            return HFForward(model.module, rank=rank, alpha=alpha, seed=seed)
