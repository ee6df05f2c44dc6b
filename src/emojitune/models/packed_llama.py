"""A plain Llama read from its files, its linear layers fused and packed, adapters beside it.

No modules are built and no weights are held twice, so it loads in a fraction of a second.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from emojitune.models import lora
from emojitune.models.linear import PackedLinear
from emojitune.models.llama import FUSED_LINEARS, LlamaConfig, linear_shapes
from emojitune.models.rotary import RotaryEmbedding
from emojitune.models.safetensors_folder import SafetensorsFolder

P = TypeVar("P", bound=PackedLinear, covariant=True)
T = TypeVar("T")

_LOW_PRECISION_ROWS = 16


def has_all_weights(config: LlamaConfig, weights: SafetensorsFolder) -> bool:
    """Whether a folder has every weight of a Llama of these sizes."""
    return all(name in weights for name in _weight_names(config))


class Run(Protocol):
    """Runs one step of a load, and returns its result."""

    def __call__(self, step: Callable[[], T], /) -> T: ...


def run_here(step: Callable[[], T], /) -> T:
    """Run a step in this thread."""
    return step()


@dataclass(frozen=True, slots=True)
class PackedLayer(Generic[P]):
    """A decoder layer: its norms (C,), and its linears in the order of `FUSED_LINEARS`."""

    input_norm: Tensor
    mlp_norm: Tensor
    linears: tuple[P, ...]


class PackedLlama(Generic[P]):
    """The weights of a Llama, ready to multiply.

    Shapes: T tokens, C the hidden size, V the vocabulary's size, H query heads and K key heads of
    size D.

    Args:
        pack: Makes a linear of weights (out, in): PackedLinear for inference, TrainableLinear for
            training.
        run: Runs each step that takes a while, in the thread that computes.

    Attributes:
        heads: H.
        kv_heads: K.
        head_dim: D.
        eps: Of the norms.
        linear_shapes: (out, in) of every linear layer, by its name in the model.
        embedding: (V, C).
        lm_head: The output head, C to V.
        layers: The decoder layers, in order.
        final_norm: (C,).

    Raises:
        ValueError: A weight has another shape than the sizes say.
    """

    def __init__(
        self,
        config: LlamaConfig,
        weights: SafetensorsFolder,
        device: torch.device,
        dtype: torch.dtype,
        pack: Callable[[Tensor], P],
        run: Run = run_here,
    ) -> None:
        read = _WeightReader(config, weights, device, dtype, pack)
        embedding_shape = (config.vocab_size, config.hidden_size)
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = config.head_dim
        self.eps: float = config.rms_norm_eps
        self.linear_shapes = read.shapes
        self.embedding = run(lambda: read.tensor("model.embed_tokens.weight", embedding_shape))
        tied = config.tie_word_embeddings
        # First: packing takes as much memory again, which the layers then reuse.
        self.lm_head = run(
            lambda: pack(self.embedding if tied else read.tensor("lm_head.weight", embedding_shape))
        )
        self.layers = [run(partial(read.layer, name)) for name in _layer_names(config)]
        self.final_norm = read.norm("model.norm")
        self._rotary = RotaryEmbedding(config.values, config.head_dim, device)

    @property
    def fused_names(self) -> list[list[str]]:
        """The names of the linear layers in each fused linear, from the first decoder layer on."""
        return [
            [f"model.layers.{number}.{name}" for name in names]
            for number in range(len(self.layers))
            for names in FUSED_LINEARS
        ]

    @property
    def rotary_columns(self) -> int:
        """Number of columns of the fused q, k and v that are queries and keys."""
        return (self.heads + self.kv_heads) * self.head_dim

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions (T,), each (T, 1, D / 2)."""
        return self._rotary(positions, self.embedding.dtype)

    def split_qkv(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (T, H, D), key and value (T, K, D) of a fused (T, (H + 2K) × D), as views."""
        parts = qkv.view(len(qkv), -1, self.head_dim)
        keys, values = self.heads, self.heads + self.kv_heads
        return parts[:, :keys], parts[:, keys:values], parts[:, values:]

    @property
    def bytes(self) -> int:
        """Memory of the weights, without the norms."""
        linears = [self.lm_head, *(linear for layer in self.layers for linear in layer.linears)]
        tensors = [self.embedding, *(linear.weight for linear in linears)]
        distinct = {id(tensor): tensor for tensor in tensors}  # a head may share the embedding
        return sum(tensor.numel() * tensor.element_size() for tensor in distinct.values())


class LoraDelta:
    """The LoRA update of one fused linear: x Aᵀ B, by A (R, in) and B (R, out) in float32.

    Both are also kept in the dtype of the weights, for many rows. For few, one bfloat16 call of
    oneDNN costs more than the arithmetic in float32.
    """

    def __init__(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        self._few = (a, b)
        self._many = (a.to(dtype), b.to(dtype))

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Add x Aᵀ B to the linear's output (T, out) for rows x (T, in), in place."""
        if len(x) < _LOW_PRECISION_ROWS:
            a, b = self._few
            out.add_((x.float() @ a.T) @ b)
        else:
            a, b = self._many
            out.addmm_(x @ a.T, b)

    @property
    def bytes(self) -> int:
        """Memory of A and B."""
        distinct = {id(side): side for side in (*self._few, *self._many)}  # the same two in float32
        return sum(side.nbytes for side in distinct.values())


class LlamaAdapter:
    """An adapter beside a packed Llama: a delta for each linear of each layer.

    Args:
        state: Tensors by the names of `lora.adapter_state`.
        scale: The factor of the updates, alpha / rank.

    Raises:
        ModelError: The tensors are for another base model.
    """

    def __init__(
        self, llama: PackedLlama[PackedLinear], state: Mapping[str, Tensor], scale: float
    ) -> None:
        lora.check_shapes(state, llama.linear_shapes)

        def delta(layer: str, names: Sequence[str]) -> LoraDelta:
            sides = [[state[f"{layer}.{name}.lora_{side}"] for side in "AB"] for name in names]
            factors = [(a.to(device), b.to(device), scale) for a, b in sides]
            return LoraDelta(*lora.fuse(factors, torch.float32), llama.embedding.dtype)

        device = llama.embedding.device
        self.layers = [
            tuple(delta(f"model.layers.{number}", names) for names in FUSED_LINEARS)
            for number in range(len(llama.layers))
        ]

    @property
    def bytes(self) -> int:
        """Memory in addition to the base."""
        return sum(delta.bytes for layer in self.layers for delta in layer)


class _WeightReader(Generic[P]):
    """Reads weights from disk, and packs them on their device."""

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
            for layer in _layer_names(config)
            for name, shape in linear_shapes(config).items()
        }
        self._width = config.hidden_size
        self._weights = weights
        self._device = device
        self._dtype = dtype
        self._pack = pack

    def tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        # A copy: the file may change while the model is in use.
        return self._weights.get(name, shape).to(self._device, self._dtype, copy=True)

    def norm(self, name: str) -> Tensor:
        return self.tensor(f"{name}.weight", (self._width,))

    def layer(self, name: str) -> PackedLayer[P]:
        return PackedLayer(
            self.norm(f"{name}.input_layernorm"),
            self.norm(f"{name}.post_attention_layernorm"),
            tuple(
                self._fused_linear([f"{name}.{one}" for one in names]) for names in FUSED_LINEARS
            ),
        )

    def _fused_linear(self, names: Sequence[str]) -> P:
        """Linear layers with one input, concatenated."""
        parts = [self._weights.get(f"{name}.weight", self.shapes[name]) for name in names]
        return self._pack(torch.cat(parts).to(self._device, self._dtype))


def _layer_names(config: LlamaConfig) -> Iterator[str]:
    return (f"model.layers.{number}" for number in range(config.num_hidden_layers))


def _weight_names(config: LlamaConfig) -> Iterator[str]:
    yield from ("model.embed_tokens.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield "lm_head.weight"
    for layer in _layer_names(config):
        for name in ("input_layernorm", "post_attention_layernorm", *linear_shapes(config)):
            yield f"{layer}.{name}.weight"
