"""The forward pass of any model: transformers' modules, differentiated by autograd.

Attention is registered with transformers as the implementation `shared_prefix`; the layout of the
row is passed to each forward call as the keyword `row_layout`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

from emojitune.errors import ModelError
from emojitune.models import lora
from emojitune.training.attention import RowLayout, attend
from emojitune.training.batches import Pack

_SHARED_PREFIX = "shared_prefix"


class HFForward:
    """The forward pass through a module, to which LoRA layers are attached in place."""

    name = "the model's own modules"

    def __init__(self, module: Any, *, rank: int, alpha: float, seed: int) -> None:
        module.train()
        lora.attach(module, rank=rank, alpha=alpha, seed=seed)
        module.set_attn_implementation(_SHARED_PREFIX)
        self._module = module
        self.state: Mapping[str, Tensor] = lora.adapter_state(module)

    def leaves(self) -> list[Tensor]:
        return list(self.state.values())

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        logits: Tensor = self._module(
            input_ids=row.ids,
            position_ids=row.positions,
            row_layout=row.layout,
            logits_to_keep=row.logits_indices,
            use_cache=False,
        ).logits[0]
        return logits

    def assign_grads(self, grads: Sequence[Tensor]) -> None:
        for parameter, grad in zip(self.state.values(), grads, strict=True):
            parameter.grad = grad.contiguous()


def _registered_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    row_layout: RowLayout,
    scaling: float,
    **others: Any,
) -> tuple[Tensor, None]:
    """query (1, H, T, D), key and value (1, K, T, D), H a multiple of K; returns (1, T, H, D)."""
    if others.get("softcap") is not None or others.get("s_aux") is not None:
        raise ModelError(
            "This base model's attention caps its scores or has sinks, which training here does "
            "not do yet. Use another base model.",
            param="model",
        )
    heads = query.shape[1]
    rows = torch.cat([query[0], key[0], value[0]]).transpose(0, 1)
    attended = attend(rows, heads, row_layout, scaling)
    return attended.view(1, len(attended), heads, -1), None


AttentionInterface.register(_SHARED_PREFIX, _registered_attention)
AttentionMaskInterface.register(_SHARED_PREFIX, lambda **_: None)
