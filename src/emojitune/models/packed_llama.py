"""A Llama straight from its files, each product packed, adapters beside it.

No modules are made and nothing is held twice, so it is there in a fraction of a second.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from emojitune.models import lora
from emojitune.models.llama import PRODUCTS, LlamaConfig, linear_shapes
from emojitune.models.products import Product
from emojitune.models.rotary import Rotary
from emojitune.models.safetensors_folder import SafetensorsFolder

# A call of oneDNN costs more than the arithmetic of so few rows in float32.
_FEW_ROWS = 8

P = TypeVar("P", bound=Product)


def is_whole(config: LlamaConfig, weights: SafetensorsFolder) -> bool:
    """Whether all weights that the sizes ask for are there."""
    return all(name in weights for name in _names(config))


@dataclass(frozen=True, slots=True)
class PackedLayer(Generic[P]):
    """A decoder layer: its norms (C,), and its products in the order of `PRODUCTS`."""

    input_norm: Tensor
    mlp_norm: Tensor
    products: tuple[P, ...]


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
        def take(name: str, *shape: int) -> Tensor:
            # A copy: the file may change while the model is in use.
            return weights.take(name, shape).to(device, dtype, copy=True)

        def product(names: Sequence[str]) -> P:
            parts = [weights.take(name, shapes[name.removesuffix(".weight")]) for name in names]
            return pack(torch.cat(parts).to(device, dtype))

        width, vocabulary = config.hidden_size, config.vocab_size
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = config.head_dim
        self.eps: float = config.rms_norm_eps
        self.linear_shapes = shapes = {
            f"{layer}.{name}": shape
            for layer in _layers(config)
            for name, shape in linear_shapes(config).items()
        }
        self.embedding = take("model.embed_tokens.weight", vocabulary, width)
        tied = config.tie_word_embeddings
        # First, because packing takes as much again: what it leaves is room for the layers.
        self.head = pack(self.embedding if tied else take("lm_head.weight", vocabulary, width))
        self.layers = [
            PackedLayer(
                take(f"{layer}.input_layernorm.weight", width),
                take(f"{layer}.post_attention_layernorm.weight", width),
                tuple(product([f"{layer}.{name}.weight" for name in names]) for names in PRODUCTS),
            )
            for layer in _layers(config)
        ]
        self.final_norm = take("model.norm.weight", width)
        self._rotary = Rotary(config.values, config.head_dim, device)

    @property
    def joined_names(self) -> list[list[str]]:
        """The linear layers of each product, by their names in the model, from the first on."""
        return [
            [f"model.layers.{number}.{name}" for name in names]
            for number in range(len(self.layers))
            for names in PRODUCTS
        ]

    @property
    def rotated(self) -> int:
        """How many columns of the q/k/v product are queries and keys."""
        return (self.heads + self.kv_heads) * self.head_dim

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions (T,), each (T, 1, D / 2)."""
        return self._rotary(positions, self.embedding.dtype)

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (T, H, D), key and value (T, K, D) of a q/k/v product, as views."""
        parts = qkv.view(len(qkv), -1, self.head_dim)
        keys, values = self.heads, self.heads + self.kv_heads
        return parts[:, :keys], parts[:, keys:values], parts[:, values:]

    @property
    def bytes(self) -> int:
        """What the weights take in memory, but for the norms."""
        products = [self.head, *(product for layer in self.layers for product in layer.products)]
        tensors = [self.embedding, *(product.weight for product in products)]
        held = {id(tensor): tensor for tensor in tensors}  # a head may be the embedding itself
        return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


class LowRank:
    """The update of one product: A (R, in) and B (R, out), in the dtype of the weights."""

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self._a = a
        self._b = b

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Add x Aᵀ B to the product of rows x (T, in), in place."""
        if len(x) <= _FEW_ROWS:
            out.add_((x.float() @ self._a.float().T) @ self._b.float())
        else:
            out.addmm_(x @ self._a.T, self._b)

    @property
    def bytes(self) -> int:
        return self._a.nbytes + self._b.nbytes


class LlamaAdapter:
    """An adapter beside a packed Llama: for each layer the updates of its products."""

    def __init__(
        self, llama: PackedLlama[Product], state: Mapping[str, Tensor], scale: float
    ) -> None:
        """Raises ModelError when `state`, by the names of `lora.adapter_state`, does not fit."""
        lora.check(state, llama.linear_shapes)
        device, dtype = llama.embedding.device, llama.embedding.dtype

        def pair(layer: str) -> lora.Pair:
            a, b = (state[f"{layer}.lora_{side}"].to(device) for side in ("A", "B"))
            return a, b, scale

        self.layers = [
            tuple(
                LowRank(*lora.join([pair(f"model.layers.{at}.{name}") for name in names], dtype))
                for names in PRODUCTS
            )
            for at in range(len(llama.layers))
        ]

    @property
    def bytes(self) -> int:
        """What it takes in memory beside its base."""
        return sum(update.bytes for layer in self.layers for update in layer)


def _layers(config: LlamaConfig) -> Iterator[str]:
    return (f"model.layers.{number}" for number in range(config.num_hidden_layers))


def _names(config: LlamaConfig) -> Iterator[str]:
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield "lm_head.weight"
    for layer in _layers(config):
        for name in ("input_layernorm", "post_attention_layernorm", *linear_shapes(config)):
            yield f"{layer}.{name}.weight"
