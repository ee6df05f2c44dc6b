"""A plain Llama (Touvron et al., 2023, arXiv:2302.13971): its sizes, and the steps between linears.

Linear layers with one input are fused: q, k and v, and gate and up. The results are those of
transformers' modules in a fraction of the time, on a CPU where small products and float32 copies
cost more than the arithmetic. packed_llama.py reads the weights; training and inference compose
them, each in its own way.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from emojitune.models import rotary

# The linear layers of a decoder layer; those of one fused linear together, in its order.
FUSED_LINEARS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """The sizes of a Llama, as config.json names them, and all of that file as `values`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    values: Mapping[str, Any]


def read_config(folder: Path) -> LlamaConfig | None:
    """The sizes of the Llama in a folder; None where config.json describes another model.

    A plain Llama has no biases, SwiGLU, a supported rotary embedding and unquantized weights. Not
    by transformers' classes: they would import most of what its models need.

    Raises:
        OSError, ValueError: config.json is missing or unreadable.
    """
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    plain = (
        values.get("model_type") == "llama"
        and values.get("architectures", ["LlamaForCausalLM"]) == ["LlamaForCausalLM"]
        and values.get("hidden_act") == "silu"
        and not any(values.get(key) for key in ("attention_bias", "mlp_bias", "auto_map"))
        and values.get("quantization_config") is None
        and rotary.rope_type(values) in rotary.ROPE_TYPES
    )
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    if not plain or not heads or not width or any(key not in values for key in _REQUIRED):
        return None
    return LlamaConfig(
        **{key: values[key] for key in _REQUIRED},
        num_key_value_heads=values.get("num_key_value_heads") or heads,
        head_dim=values.get("head_dim") or width // heads,
        tie_word_embeddings=values.get("tie_word_embeddings", False),
        values=values,
    )


_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "rms_norm_eps",
    "max_position_embeddings",
)


def linear_shapes(config: LlamaConfig) -> dict[str, tuple[int, int]]:
    """(out, in) of the linear layers of each decoder layer, by their names within it."""
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return {
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMSNorm (Zhang and Sennrich, 2019, arXiv:1910.07467).

    Args:
        x: Rows (T, C).
        weight: (C,).

    Returns:
        The normalized rows (T, C), and the inverse root mean squares (T, 1) in float32.
    """
    if x.is_cuda:
        normed, inverse = torch.ops.aten._fused_rms_norm(x, weight.shape, weight, eps)
        return normed, inverse
    wide = x.float()
    inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (wide * inverse).to(x.dtype) * weight, inverse


def apply_rotary(columns: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate queries and keys (T, heads × D), in place; cos and sin are (T, 1, D / 2)."""
    first, second = columns.view(len(columns), -1, 2, cos.shape[-1]).unbind(2)
    turned = (first * cos).addcmul_(second, sin, value=-1)
    second.mul_(cos).addcmul_(first, sin)
    first.copy_(turned)
