"""A Llama straight from its files, each product packed, adapters beside it.

No modules are made and nothing is held twice, so it is there in a fraction of a second.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from emojitune.models import lora
from emojitune.models.linear import PackedLinear
from emojitune.models.llama import FUSED_LINEARS, LlamaConfig, linear_shapes
from emojitune.models.rotary import RotaryEmbedding
from emojitune.models.safetensors_folder import SafetensorsFolder

P = TypeVar("P", bound=PackedLinear, covariant=True)

_MANY_ROWS = 16


def has_all_weights(config: LlamaConfig, weights: SafetensorsFolder) -> bool:
    """Whether all weights that the sizes ask for are there."""
    return all(name in weights for name in _names(config))


@dataclass(frozen=True, slots=True)
class PackedLayer(Generic[P]):
    """A decoder layer: its norms (C,), and its products in the order of `FUSED_LINEARS`."""

    input_norm: Tensor
    mlp_norm: Tensor
    linears: tuple[P, ...]


class PackedLlama(Generic[P]):
    """A Llama's products, each in the layout that it is multiplied in. T is a number of tokens.

    Args:
        pack: Makes a product of weights (out, in): one way for chat, both ways for training.
    """

    def __init__(
        self,
        config: LlamaConfig,
        weights: SafetensorsFolder,
        device: torch.device,
        dtype: torch.dtype,
        pack: Callable[[Tensor], P],
    ) -> None:
        read = _WeightReader(config, weights, device, dtype, pack)
        words = (config.vocab_size, config.hidden_size)
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = config.head_dim
        self.eps: float = config.rms_norm_eps
        self.linear_shapes = read.shapes
        self.embedding = read.tensor("model.embed_tokens.weight", words)
        tied = config.tie_word_embeddings
        # First, because packing takes as much again: what it leaves is room for the layers.
        self.lm_head = pack(self.embedding if tied else read.tensor("lm_head.weight", words))
        self.layers = [read.layer(name) for name in _layers(config)]
        self.final_norm = read.norm("model.norm")
        self._rotary = RotaryEmbedding(config.values, config.head_dim, device)

    @property
    def fused_names(self) -> list[list[str]]:
        """The linear layers of each product, by their names in the model, from the first on."""
        return [
            [f"model.layers.{number}.{name}" for name in names]
            for number in range(len(self.layers))
            for names in FUSED_LINEARS
        ]

    @property
    def rotary_columns(self) -> int:
        """How many columns of the q/k/v product are queries and keys."""
        return (self.heads + self.kv_heads) * self.head_dim

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions (T,), each (T, 1, D / 2)."""
        return self._rotary(positions, self.embedding.dtype)

    def split_qkv(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (T, H, D), key and value (T, K, D) of a q/k/v product, as views."""
        parts = qkv.view(len(qkv), -1, self.head_dim)
        keys, values = self.heads, self.heads + self.kv_heads
        return parts[:, :keys], parts[:, keys:values], parts[:, values:]

    @property
    def bytes(self) -> int:
        """What the weights take in memory, but for the norms."""
        linears = [self.lm_head, *(linear for layer in self.layers for linear in layer.linears)]
        tensors = [self.embedding, *(linear.weight for linear in linears)]
        held = {id(tensor): tensor for tensor in tensors}  # a head may be the embedding itself
        return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


class LoraDelta:
    """The update of one product, by A (R, in) and B (R, out), both in float32.

    They are kept in the dtype of the weights too, for many rows. At few rows a call of oneDNN for
    bf16 costs more than the arithmetic in float32.
    """

    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        self._few = (a, b)
        self._many = (a.to(dtype), b.to(dtype))

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Add x Aᵀ B to the product of rows x (T, in), in place."""
        if len(x) < _MANY_ROWS:
            a, b = self._few
            out.add_((x.float() @ a.T) @ b)
        else:
            a, b = self._many
            out.addmm_(x @ a.T, b)

    @property
    def bytes(self) -> int:
        held = {id(side): side for side in (*self._few, *self._many)}  # in float32 the same twice
        return sum(side.nbytes for side in held.values())


class LlamaAdapter:
    """An adapter beside a packed Llama: for each layer the updates of its products."""

    def __init__(
        self, llama: PackedLlama[PackedLinear], state: Mapping[str, Tensor], scale: float
    ) -> None:
        """Raises ModelError when `state`, by the names of `lora.adapter_state`, does not fit."""
        lora.check_shapes(state, llama.linear_shapes)

        def update(layer: str, names: Sequence[str]) -> LoraDelta:
            sides = [[state[f"{layer}.{name}.lora_{side}"] for side in "AB"] for name in names]
            factors = [(a.to(device), b.to(device), scale) for a, b in sides]
            return LoraDelta(*lora.fuse(factors, torch.float32), llama.embedding.dtype)

        device = llama.embedding.device
        self.layers = [
            tuple(update(f"model.layers.{number}", names) for names in FUSED_LINEARS)
            for number in range(len(llama.layers))
        ]

    @property
    def bytes(self) -> int:
        """What it takes in memory beside its base."""
        return sum(update.bytes for layer in self.layers for update in layer)


class _WeightReader(Generic[P]):
    """Weights from the disk to where they are multiplied."""

    def __init__(
        self,
        config: LlamaConfig,
        weights: SafetensorsFolder,
        device: torch.device,
        dtype: torch.dtype,
        pack: Callable[[Tensor], P],
    ) -> None:
        self.shapes = {
            f"{layer}.{name}": shape
            for layer in _layers(config)
            for name, shape in linear_shapes(config).items()
        }
        self._width = config.hidden_size
        self._weights = weights
        self._device = device
        self._dtype = dtype
        self._pack = pack

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        # A copy: the file may change while the model is in use.
        return self._weights.take(name, shape).to(self._device, self._dtype, copy=True)

    def norm(self, name: str) -> Tensor:
        return self.tensor(f"{name}.weight", (self._width,))

    def layer(self, name: str) -> PackedLayer[P]:
        return PackedLayer(
            self.norm(f"{name}.input_layernorm"),
            self.norm(f"{name}.post_attention_layernorm"),
            tuple(self._product([f"{name}.{one}" for one in names]) for names in FUSED_LINEARS),
        )

    def _product(self, names: Sequence[str]) -> P:
        """Linear maps that share an input, as one."""
        parts = [self._weights.take(f"{name}.weight", self.shapes[name]) for name in names]
        return self._pack(torch.cat(parts).to(self._device, self._dtype))


def _layers(config: LlamaConfig) -> Iterator[str]:
    return (f"model.layers.{number}" for number in range(config.num_hidden_layers))


def _names(config: LlamaConfig) -> Iterator[str]:
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield "lm_head.weight"
    for layer in _layers(config):
        for name in ("input_layernorm", "post_attention_layernorm", *linear_shapes(config)):
            yield f"{layer}.{name}.weight"
