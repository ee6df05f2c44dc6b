"""A Llama as chat runs it: straight from its files, each product packed, adapters beside it.

No modules are made and nothing is held twice, so it is there in a fraction of a second.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from emojitune.models import lora
from emojitune.models.llama import PRODUCTS, Llama, config_fits, linear_shapes
from emojitune.models.products import Product
from emojitune.models.safetensors_folder import SafetensorsFolder

# A call of oneDNN costs more than the arithmetic of so few rows in float32.
_FEW_ROWS = 8


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

        width = config.hidden_size

        def take(name: str, *shape: int) -> Tensor:
            # A copy: the file may change while the model is in use.
            return weights.take(name, shape).to(device, dtype, copy=True)

        embedding = take("model.embed_tokens.weight", config.vocab_size, width)
        super().__init__(
            config,
            embedding,
            take("model.norm.weight", width),
            LlamaRotaryEmbedding(config).to(device),
        )
        self._shapes = linear_shapes(config)
        self.layers = [
            PackedLayer(
                take(f"{layer}.input_layernorm.weight", width),
                take(f"{layer}.post_attention_layernorm.weight", width),
                tuple(
                    Product(
                        torch.cat(
                            [
                                weights.take(f"{layer}.{name}.weight", self._shapes[name])
                                for name in names
                            ]
                        ).to(device, dtype)
                    )
                    for names in PRODUCTS
                ),
            )
            for layer in _layers(config)
        ]
        tied = config.tie_word_embeddings
        self.head = Product(embedding if tied else take("lm_head.weight", config.vocab_size, width))

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

    def __init__(self, llama: PackedLlama, state: Mapping[str, Tensor], scale: float) -> None:
        """Raises ModelError when `state`, by the names of `lora.adapter_state`, does not fit."""
        lora.check(state, llama.linear_shapes())
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


def _layers(config: Any) -> Iterator[str]:
    return (f"model.layers.{number}" for number in range(config.num_hidden_layers))


def _names(config: Any) -> Iterator[str]:
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield "lm_head.weight"
    for layer in _layers(config):
        for name in ("input_layernorm", "post_attention_layernorm", *linear_shapes(config)):
            yield f"{layer}.{name}.weight"
