"""Rotary positions (arXiv:2104.09864) as transformers has them, without importing its models."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Others turn all positions of a pass by the furthest of them: a reply would hang on its neighbours.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def rope_type(values: Mapping[str, Any]) -> str:
    """The kind of rotation that a Llama's config.json asks for, as older and newer ones say it."""
    said = values.get("rope_parameters") or values.get("rope_scaling") or {}
    return str(said.get("rope_type", said.get("type", "default")))


class RotaryEmbedding:
    """Angles by position, for heads of D numbers.

    Args:
        values: A Llama's config.json; its kind of rotation must be one of `ROPE_TYPES`.
    """

    def __init__(self, values: Mapping[str, Any], head_dim: int, device: torch.device) -> None:
        if rope_type(values) == "default":
            theta = (values.get("rope_parameters") or values).get("rope_theta", 10_000.0)
            steps = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
            frequencies, self._scale = 1.0 / theta**steps, 1.0
        else:
            # Not for all: transformers' configurations import most of what its models do.
            from transformers import LlamaConfig
            from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

            frequencies, self._scale = ROPE_INIT_FUNCTIONS[rope_type(values)](LlamaConfig(**values))
        self._frequencies = frequencies.to(device)

    def __call__(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions (T,), each (T, 1, D / 2), computed in float32."""
        angles = positions[:, None].float() * self._frequencies
        cos, sin = angles.cos() * self._scale, angles.sin() * self._scale
        return cos[:, None].to(dtype), sin[:, None].to(dtype)
