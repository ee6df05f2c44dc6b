"""A Llama-like decoder as few large products: one for q, k and v, one for gate and up.

The same numbers as transformers' modules in a fraction of the time, on a CPU where small products
and float32 copies cost more than the arithmetic. The weights are joined in place: the modules keep
views of them. `fits` says for which models; every other is run through its own modules.

Weights and the steps between products. Training and chat each put them together in their own way.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Layer:
    """The frozen weights of a decoder layer, each (out, in); the norms (C,)."""

    input_norm: Tensor
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


def fits(module: Any) -> bool:
    """Whether `module` is a Llama: no biases, SwiGLU, rotary positions over whole heads."""
    import transformers

    if type(module) is not transformers.LlamaForCausalLM:
        return False
    config = module.config
    biased = config.attention_bias or config.mlp_bias or module.lm_head.bias is not None
    return config.hidden_act == "silu" and not biased


class JoinedLlama:
    """The frozen part of a Llama. T is the number of tokens in a row."""

    def __init__(self, module: Any) -> None:
        config = module.config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = module.model.layers[0].self_attn.head_dim
        self.eps: float = config.rms_norm_eps
        self.layers = [_join(layer) for layer in module.model.layers]
        self.embedding: Tensor = module.model.embed_tokens.weight
        self.final_norm: Tensor = module.model.norm.weight
        self.head: Tensor = module.lm_head.weight
        self._rotary = module.model.rotary_emb

    @property
    def rotated(self) -> int:
        """How many columns of the q/k/v product are queries and keys."""
        return (self.heads + self.kv_heads) * self.head_dim

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions (T,), each (T, 1, D / 2)."""
        cos, sin = self._rotary(self.embedding, positions[None])
        half = self.head_dim // 2
        return cos[0, :, None, :half], sin[0, :, None, :half]

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (T, H, D), key and value (T, K, D) of a q/k/v product, as views."""
        parts = qkv.view(len(qkv), -1, self.head_dim)
        keys, values = self.heads, self.heads + self.kv_heads
        return parts[:, :keys], parts[:, keys:values], parts[:, values:]


def normalize(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """RMSNorm of rows x (T, C), and the inverse root mean squares (T, 1), in float32."""
    wide = x.float()
    inverse = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (wide * inverse).to(x.dtype) * weight, inverse


def rotate(columns: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Turn queries and keys (T, heads × D) by their positions, in place."""
    first, second = columns.view(len(columns), -1, 2, cos.shape[-1]).unbind(2)
    turned = first * cos - second * sin
    second.mul_(cos).add_(first * sin)
    first.copy_(turned)


def _join(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        input_norm=layer.input_layernorm.weight,
        qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        out=attention.o_proj.weight,
        mlp_norm=layer.post_attention_layernorm.weight,
        gate_up=_joined(mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj.weight,
    )


@torch.no_grad()
def _joined(*linears: nn.Linear) -> Tensor:
    """The weights of several layers one below the other; the layers keep views of it."""
    joined = torch.cat([linear.weight for linear in linears])
    start = 0
    for linear in linears:
        linear.weight.data = joined[start : start + linear.out_features]
        start += linear.out_features
    return joined
