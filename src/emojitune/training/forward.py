"""Ways through a model with LoRA layers: the fast one where it fits, else the model's own."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from emojitune.models import llama, lora
from emojitune.training import attention
from emojitune.training.batches import Pack


class Forward(Protocol):
    """A row of tokens to logits, differentiable by its leaves."""

    @property
    def name(self) -> str: ...

    def leaves(self) -> list[Tensor]:
        """The tensors to differentiate by, once a step; threads may share them."""
        ...

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        """Logits (S, V) at the places of a row."""
        ...

    def assign(self, grads: Sequence[Tensor]) -> None:
        """Set the parameters' gradients from those of the leaves, in float32.

        They must be contiguous: torch's fused optimizers do not look at strides.
        """
        ...


class ModuleForward:
    """Through the modules of transformers, with autograd all the way: any model."""

    name = "the model's own modules"

    def __init__(self, module: Any) -> None:
        module.set_attn_implementation(attention.NAME)
        self._module = module
        self._parameters = list(lora.adapter_state(module).values())

    def leaves(self) -> list[Tensor]:
        return self._parameters

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self._module(
            input_ids=row.ids,
            position_ids=row.positions,
            row_layout=row.layout,
            logits_to_keep=row.places,
            use_cache=False,
        ).logits[0]
        return logits

    def assign(self, grads: Sequence[Tensor]) -> None:
        for parameter, grad in zip(self._parameters, grads, strict=True):
            parameter.grad = grad.contiguous()


def attach_lora(module: Any, *, rank: int, alpha: float, seed: int) -> Forward:
    """Put LoRA layers on `module`, in place, and choose the way through it."""
    from emojitune.training.llama import LlamaForward

    joined = llama.JoinedLlama(module) if llama.fits(module) else None
    lora.attach(module, rank=rank, alpha=alpha, seed=seed)
    return LlamaForward(joined, module) if joined else ModuleForward(module)
