"""A Llama-like decoder as few large products: one for q, k and v, one for gate and up.

The same numbers as transformers' modules in a fraction of the time, on a CPU where small products
and float32 copies cost more than the arithmetic. `fits` says for which models; every other is run
through its own modules.

Shapes, weights and the steps between products. Training puts them together in its own way, and
chat in another, by weights that packed_llama.py reads.
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


# The linear maps of a layer, those of one product together.
PRODUCTS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)

# Others turn all positions of a pass by the furthest of them: a reply would hang on its neighbours.
_ROTATIONS = ("default", "linear", "llama3", "yarn")


def fits(module: Any) -> bool:
    """Whether `module` is a Llama: no biases, SwiGLU, rotary positions over whole heads."""
    import transformers

    return (
        type(module) is transformers.LlamaForCausalLM
        and module.lm_head.bias is None
        and config_fits(module.config)
    )


def config_fits(config: Any) -> bool:
    """Whether the module that transformers makes of `config` fits, its weights plain numbers."""
    import transformers

    return (
        type(config) is transformers.LlamaConfig
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias)
        and config.rope_parameters["rope_type"] in _ROTATIONS
        and getattr(config, "quantization_config", None) is None
    )


def linear_shapes(config: Any) -> dict[str, tuple[int, int]]:
    """(out, in) of the linear maps of each layer, by their names within it."""
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


class Llama:
    """What a Llama is in whatever form its products are kept. T is the number of tokens."""

    def __init__(self, config: Any, embedding: Tensor, final_norm: Tensor, rotary: Any) -> None:
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = config.head_dim
        self.eps: float = config.rms_norm_eps
        self.embedding = embedding
        self.final_norm = final_norm
        self._rotary = rotary

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


class JoinedLlama(Llama):
    """A Llama's frozen weights, joined in place: the modules keep views of them."""

    def __init__(self, module: Any) -> None:
        body = module.model
        super().__init__(module.config, body.embed_tokens.weight, body.norm.weight, body.rotary_emb)
        self.layers = [_join(layer) for layer in body.layers]
        self.head: Tensor = module.lm_head.weight


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
