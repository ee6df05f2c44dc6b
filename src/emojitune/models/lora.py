"""LoRA (Hu et al., 2021, arXiv:2106.09685): attach, initialize, fuse and merge low-rank updates.

Knows linear layers, not language: every `nn.Linear` except the output head is adapted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from emojitune.errors import ModelError


class LoraLinear(nn.Module):
    """A frozen linear layer plus a trainable low-rank update: W x + (alpha / rank) B A x.

    A (rank, in) and B (out, rank) are float32 whatever the frozen weights are, since single
    optimizer steps are too small for bfloat16 to add; products run in the input's dtype.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.lora_A, self.lora_B = _init_factors(
            (base.out_features, base.in_features), rank, generator, base.weight.device
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        a, b = self.lora_A.to(x.dtype), (self.scale * self.lora_B).to(x.dtype)
        out = _LoraLinearFunction.apply(rows, self.base.weight, self.base.bias, a, b)  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


class _LoraLinearFunction(torch.autograd.Function):
    """x Wᵀ + bias + (x Aᵀ) Bᵀ with W and bias frozen, for rows x (N, in).

    Autograd alone would allocate a tensor for each sum, forward and backward; here the small
    products are added to the large ones in place, which saves 1/8 of a training step on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor
    ) -> Tensor:
        low = x @ a.T
        ctx.save_for_backward(x, weight, a, b, low)
        return functional.linear(x, weight, bias).addmm_(low, b.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
        x, weight, a, b, low = ctx.saved_tensors
        grad = grads[0]
        grad_low = grad @ b
        grad_x = (grad @ weight).addmm_(grad_low, a) if ctx.needs_input_grad[0] else None
        return grad_x, None, None, grad_low.T @ x, grad.T @ low


def attach(model: nn.Module, *, rank: int, alpha: float, seed: int) -> None:
    """Freeze `model` and put a LoRA update beside each of its linear layers, in place.

    Args:
        seed: Of the initial A; B starts at zero.

    Raises:
        ModelError: It has no linear layers.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    linears = list(_target_modules(model))
    if not linears:
        raise ModelError("LoRA needs linear layers (torch.nn.Linear), and this model has none.")
    for name, linear in linears:
        model.set_submodule(name, LoraLinear(linear, rank, alpha, generator))


def init_state(
    shapes: Mapping[str, tuple[int, int]], *, rank: int, seed: int, device: torch.device
) -> dict[str, Tensor]:
    """Trainable tensors A (rank, in) and B (out, rank) for linear layers of these shapes (out, in).

    Given the layers in the order of a model, they equal those that `attach` makes.
    """
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for layer, shape in shapes.items():
        state[f"{layer}.lora_A"], state[f"{layer}.lora_B"] = _init_factors(
            shape, rank, generator, device
        )
    return state


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The trainable tensors by name: `<layer>.lora_A` and `<layer>.lora_B`, not copied."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_adapter_state(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy `state` into a model's trainable tensors, in place.

    Raises:
        ModelError: The adapter is for another model.
    """
    _require_shapes({name: tuple(parameter.shape) for name, parameter in parameters.items()}, state)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


def check_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, int]]) -> None:
    """Check that an adapter is for linear layers of these shapes (out, in), by name.

    Raises:
        ModelError: It is for another model.
    """
    expected: dict[str, tuple[int, ...]] = {}
    for layer, (rows, columns) in shapes.items():
        a = state.get(f"{layer}.lora_A")
        rank = 0 if a is None or a.dim() == 0 else len(a)
        expected[f"{layer}.lora_A"] = (rank, columns)
        expected[f"{layer}.lora_B"] = (rows, rank)
    _require_shapes(expected, state)


def merge(model: nn.Module, state: Mapping[str, Tensor], *, scale: float) -> None:
    """Add an adapter's update to the frozen weights, in place.

    The sum is computed in float32 and rounded once to the weights' dtype.

    Raises:
        ModelError: The adapter is for another model.
    """
    layers = dict(_target_modules(model))
    check_shapes(state, {name: (of.out_features, of.in_features) for name, of in layers.items()})
    with torch.no_grad():
        for name, layer in layers.items():
            a, b = (
                state[f"{name}.lora_{side}"].to(layer.weight.device).float() for side in ("A", "B")
            )
            layer.weight.copy_(layer.weight.float() + scale * (b @ a))


LoraFactors = tuple[Tensor, Tensor, float]
"""A (rank, in), B (out, rank) and the scale of one linear layer's update."""


def fuse(factors: Sequence[LoraFactors], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Fuse the updates of layers with one input, for x Aᵀ B: A stacked (R, in), and Bᵀ, scaled, on
    the diagonal of a block matrix (R, out). R is the sum of their ranks."""
    a = torch.cat([a for a, _, _ in factors]).to(dtype)
    b = torch.block_diag(*(scale * b.T for _, b, scale in factors)).to(dtype)  # type: ignore[no-untyped-call]
    return a, b


def _require_shapes(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if shapes == expected:
        return
    name = min(name for name in {*shapes, *expected} if shapes.get(name) != expected.get(name))
    raise ModelError(
        "An adapter must have been trained on the very base model it is put on: of its "
        f"{len(shapes)} tensors (the model takes {len(expected)}), {name} has the shape "
        f"{shapes.get(name)}, where {expected.get(name)} is expected. Train it again on this base.",
        param="model",
    )


def _init_factors(
    shape: tuple[int, int], rank: int, generator: torch.Generator, device: torch.device
) -> tuple[nn.Parameter, nn.Parameter]:
    """A (rank, in), random, and B (out, rank), zero, of a layer (out, in)."""
    a = torch.empty(rank, shape[1])
    # Sampled on the CPU, so that a seed gives the same adapter on every device.
    nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
    b = torch.zeros(shape[0], rank)
    return nn.Parameter(a.to(device)), nn.Parameter(b.to(device))


def _target_modules(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    head = getattr(model, "get_output_embeddings", lambda: None)()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield name, module
