"""Rotary position embeddings (Su et al., 2021, arXiv:2104.09864), as in transformers.

transformers' models are not imported.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Other types scale all positions of a forward pass by its largest: a reply would depend on the
# requests that share its batch.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def rope_type(values: Mapping[str, Any]) -> str:
    """The type of rotary embedding in a Llama's config.json, under its older or newer key."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    return str(rope.get("rope_type", rope.get("type", "default")))


class RotaryEmbedding:
    """Angles by position, for heads of size D.

    Args:
        values: A Llama's config.json; its type must be one of `ROPE_TYPES`.
    """

    def __init__(self, values: Mapping[str, Any], head_dim: int, device: torch.device) -> None:
        if rope_type(values) == "default":
            theta = (values.get("rope_parameters") or values).get("rope_theta", 10_000.0)
            steps = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
            frequencies, self._attention_scaling = 1.0 / theta**steps, 1.0
        else:
            # Imported only here: transformers' configurations import most of what its models do.
            from transformers import LlamaConfig
            from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

            initialize = ROPE_INIT_FUNCTIONS[rope_type(values)]
            frequencies, self._attention_scaling = initialize(LlamaConfig(**values))
        self._frequencies = frequencies.to(device)

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions (T,), each (T, 1, D / 2), computed in float32."""
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos() * self._attention_scaling, angles.sin() * self._attention_scaling
        return cos[:, None].to(dtype), sin[:, None].to(dtype)
