"""A Llama as chat runs it: straight from its files, each product packed, adapters beside it.

No modules are made and nothing is held twice, so it is there in a fraction of a second.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emojitune.models import lora
from emojitune.models.llama import PRODUCTS, Llama, config_fits, linear_shapes
from emojitune.models.products import Product
from emojitune.models.safetensors_folder import SafetensorsFolder


def fits(config: Any, weights: SafetensorsFolder) -> bool:
    """Whether a folder holds a Llama that can be read so."""
    return config_fits(config) and all(name in weights for name in _names(config))


@dataclass(frozen=True, slots=True)
class PackedLayer:
    """A decoder layer: its norms (C,), and its products in the order of `PRODUCTS`."""

    input_norm: Tensor
    mlp_norm: Tensor
    products: tuple[Product, ...]


class PackedLlama(Llama):
    """A Llama's products, each in the layout that it is multiplied in."""

    def __init__(
        self, config: Any, weights: SafetensorsFolder, device: torch.device, dtype: torch.dtype
    ) -> None:
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        read = _Reader(config, weights, device, dtype)
        words = (config.vocab_size, config.hidden_size)
        embedding = read.tensor("model.embed_tokens.weight", words)
        final_norm = read.norm("model.norm")
        super().__init__(config, embedding, final_norm, LlamaRotaryEmbedding(config).to(device))
        self._shapes = read.shapes
        self.layers = [read.layer(name) for name in _layers(config)]
        tied = config.tie_word_embeddings
        self.head = Product(embedding if tied else read.tensor("lm_head.weight", words))

    @property
    def bytes(self) -> int:
        """What the weights take in memory, but for the norms."""
        products = [self.head, *(product for layer in self.layers for product in layer.products)]
        tensors = [self.embedding, *(product.weight for product in products)]
        held = {id(tensor): tensor for tensor in tensors}  # a head may be the embedding itself
        return sum(tensor.numel() * tensor.element_size() for tensor in held.values())

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of all linear layers that an adapter may change, by name."""
        return {
            f"model.layers.{number}.{name}": shape
            for number in range(len(self.layers))
            for name, shape in self._shapes.items()
        }


class LowRank:
    """The update of one product, by A (R, in) and B (R, out).

    In float32, whatever the weights are: so it was trained, and at the few rows of most passes a
    call of oneDNN for bf16 costs more than this arithmetic.
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        self._a = a
        self._b = b

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Add x Aᵀ B to the product of rows x (T, in), in place."""
        out.add_((x.float() @ self._a.T) @ self._b)

    @property
    def bytes(self) -> int:
        return self._a.nbytes + self._b.nbytes


class LlamaAdapter:
    """An adapter beside a packed Llama: for each layer the updates of its products."""

    def __init__(self, llama: PackedLlama, state: Mapping[str, Tensor], scale: float) -> None:
        """Raises ModelError when `state`, by the names of `lora.adapter_state`, does not fit."""
        lora.check(state, llama.linear_shapes())

        def update(layer: str, names: Sequence[str]) -> LowRank:
            sides = [[state[f"{layer}.{name}.lora_{side}"] for side in "AB"] for name in names]
            pairs = [(a.to(device), b.to(device), scale) for a, b in sides]
            return LowRank(*lora.join(pairs, torch.float32))

        device = llama.embedding.device
        self.layers = [
            tuple(update(f"model.layers.{number}", names) for names in PRODUCTS)
            for number in range(len(llama.layers))
        ]

    @property
    def bytes(self) -> int:
        """What it takes in memory beside its base."""
        return sum(update.bytes for layer in self.layers for update in layer)


class _Reader:
    """Weights from the disk to where they are multiplied."""

    def __init__(
        self, config: Any, weights: SafetensorsFolder, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.shapes = linear_shapes(config)
        self._width = config.hidden_size
        self._weights = weights
        self._device = device
        self._dtype = dtype

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        # A copy: the file may change while the model is in use.
        return self._weights.take(name, shape).to(self._device, self._dtype, copy=True)

    def norm(self, name: str) -> Tensor:
        return self.tensor(f"{name}.weight", (self._width,))

    def layer(self, name: str) -> PackedLayer:
        return PackedLayer(
            self.norm(f"{name}.input_layernorm"),
            self.norm(f"{name}.post_attention_layernorm"),
            tuple(self._product(name, names) for names in PRODUCTS),
        )

    def _product(self, layer: str, names: Sequence[str]) -> Product:
        """The linear maps of a layer that share an input, as one."""
        parts = [self._weights.take(f"{layer}.{name}.weight", self.shapes[name]) for name in names]
        return Product(torch.cat(parts).to(self._device, self._dtype))


def _layers(config: Any) -> Iterator[str]:
    return (f"model.layers.{number}" for number in range(config.num_hidden_layers))


def _names(config: Any) -> Iterator[str]:
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield "lm_head.weight"
    for layer in _layers(config):
        for name in ("input_layernorm", "post_attention_layernorm", *linear_shapes(config)):
            yield f"{layer}.{name}.weight"
