"""The fast way through a Llama with LoRA: forward by hand, backward by hand.

Autograd sees three functions a layer and the attention between them. Inside, the LoRA layers of
one product are joined too: their A sides stacked, their B sides block by block, so that the small
products are few. Everything runs in the dtype of the frozen weights; sums of squares in float32.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from emojitune.models.llama import PRODUCTS, JoinedLlama, normalize, rotate
from emojitune.models.lora import LoraLinear, join
from emojitune.models.products import Product
from emojitune.training.attention import attend
from emojitune.training.batches import Pack


class LlamaForward:
    """A row of tokens to logits, by way of `leaves`: the joined A and B sides of all products."""

    name = "the fast path for Llama-like models"

    def __init__(self, llama: JoinedLlama, module: Any) -> None:
        self._llama = llama
        self._products = [
            [_Frozen(weight) for weight in (layer.qkv, layer.out, layer.gate_up, layer.down)]
            for layer in llama.layers
        ]
        self._adapters = [
            _JoinedLora([layer.get_submodule(name) for name in names], llama.embedding.dtype)
            for layer in module.model.layers
            for names in PRODUCTS
        ]

    def leaves(self) -> list[Tensor]:
        """What to differentiate by, with the values that the parameters have now."""
        return [side for adapter in self._adapters for side in adapter.sides()]

    def assign(self, grads: Sequence[Tensor]) -> None:
        """Set the parameters' gradients from those of the leaves."""
        for number, adapter in enumerate(self._adapters):
            adapter.assign(*grads[2 * number : 2 * number + 2])

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        """Logits (S, V) at the places of a row."""
        llama, layout = self._llama, row.layout
        cos, sin = llama.rotation(row.positions[0])
        x = functional.embedding(row.ids[0], llama.embedding)
        for number, layer in enumerate(llama.layers):
            a_qkv, b_qkv, a_out, b_out, *mlp = leaves[8 * number : 8 * number + 8]
            qkv_product, out, gate_up, down = self._products[number]
            qkv = _apply(
                _NormQkv, x, layer.input_norm, qkv_product, a_qkv, b_qkv,
                llama.eps, cos, sin, llama.rotated,
            )  # fmt: skip
            qkv = qkv.view(len(qkv), -1, llama.head_dim)
            mixed = attend(qkv, llama.heads, layout, llama.head_dim**-0.5)
            if number == len(llama.layers) - 1:  # from here on no token asks another
                mixed, x = mixed.index_select(0, row.places), x.index_select(0, row.places)
            x = _apply(_Out, mixed, x, out, a_out, b_out)
            x = _apply(_Mlp, x, layer.mlp_norm, gate_up, down, *mlp, llama.eps)
        return functional.linear(_apply(_Norm, x, llama.final_norm, llama.eps), llama.head)


class _Frozen:
    """A product by frozen weights (out, in), and the way back, each with its own layout."""

    def __init__(self, weight: Tensor) -> None:
        self.forward = Product(weight)
        self.backward = Product(weight.T)


class _JoinedLora:
    """The LoRA layers of one product: A sides stacked (R, in), B sides as blocks of (R, out)."""

    def __init__(self, parts: Sequence[LoraLinear], dtype: torch.dtype) -> None:
        self._parts = parts
        with torch.no_grad():
            self._a = torch.cat([part.lora_A for part in parts]).to(dtype)
            self._b = torch.block_diag(*(part.lora_B.T for part in parts)).to(dtype)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def sides(self) -> tuple[Tensor, Tensor]:
        for part, (rows, columns) in self._blocks():
            self._a[rows] = part.lora_A
            self._b[rows, columns] = part.scale * part.lora_B.T
        return self._a.requires_grad_(), self._b.requires_grad_()

    def assign(self, a: Tensor, b: Tensor) -> None:
        for part, (rows, columns) in self._blocks():
            part.lora_A.grad = a[rows]
            part.lora_B.grad = (part.scale * b[rows, columns].T).contiguous()

    def _blocks(self) -> Iterator[tuple[LoraLinear, tuple[slice, slice]]]:
        """Each part, with its rows of both sides and its columns of B."""
        row = column = 0
        for part in self._parts:
            rows, columns = row + part.lora_A.shape[0], column + part.lora_B.shape[0]
            yield part, (slice(row, rows), slice(column, columns))
            row, column = rows, columns


def _apply(function: type[Function], *inputs: Any) -> Tensor:
    return function.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]


def _adapted(x: Tensor, product: _Frozen, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x Wᵀ + x Aᵀ B, and x Aᵀ."""
    low = x @ a.T
    return product.forward(x).addmm_(low, b), low


def _adapted_backward(
    product: _Frozen, grad: Tensor, x: Tensor, low: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, A and B."""
    grad_low = grad @ b.T
    return product.backward(grad).addmm_(grad_low, a), grad_low.T @ x, low.T @ grad


def _norm_backward(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of what was normalized, in float32."""
    unit = x * inverse
    scaled = grad * weight.float()
    along = (scaled * unit).mean(-1, keepdim=True)
    return scaled.sub_(unit.mul_(along)).mul_(inverse)


class _Norm(Function):
    """RMSNorm with a frozen weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        normed, inverse = normalize(x, weight, eps)
        ctx.save_for_backward(x, weight, inverse)
        return normed

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        return _norm_backward(grads[0], x, weight, inverse).to(x.dtype), None, None


class _NormQkv(Function):
    """Norm, the product for q, k and v, and the rotation of queries and keys."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, product: _Frozen, a: Tensor, b: Tensor,
        eps: float, cos: Tensor, sin: Tensor, rotated: int,
    ) -> Tensor:  # fmt: skip
        normed, inverse = normalize(x, norm, eps)
        qkv, low = _adapted(normed, product, a, b)
        rotate(qkv[:, :rotated], cos, sin)
        ctx.save_for_backward(x, norm, inverse, normed, low, a, b, cos, sin)
        ctx.product, ctx.rotated = product, rotated
        return qkv

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, inverse, *first, cos, sin = ctx.saved_tensors
        grad = grads[0].contiguous()
        rotate(grad[:, : ctx.rotated], cos, -sin)
        grad_normed, grad_a, grad_b = _adapted_backward(ctx.product, grad, *first)
        grad_x = None
        if ctx.needs_input_grad[0]:  # not in the first layer: embeddings are frozen
            grad_x = _norm_backward(grad_normed, x, norm, inverse).to(x.dtype)
        return grad_x, None, None, grad_a, grad_b, None, None, None, None


class _Out(Function):
    """The product behind the attention, added to the residual stream."""

    @staticmethod
    def forward(
        ctx: Any, mixed: Tensor, residual: Tensor, product: _Frozen, a: Tensor, b: Tensor
    ) -> Tensor:
        out, low = _adapted(mixed, product, a, b)
        ctx.save_for_backward(mixed, low, a, b)
        ctx.product = product
        return out.add_(residual)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_mixed, grad_a, grad_b = _adapted_backward(ctx.product, grads[0], *ctx.saved_tensors)
        return grad_mixed, grads[0], None, grad_a, grad_b


class _Mlp(Function):
    """Norm, gate and up, SwiGLU and down, added to the residual stream."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, gate_up: _Frozen, down: _Frozen,
        a_in: Tensor, b_in: Tensor, a_out: Tensor, b_out: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        normed, inverse = normalize(x, norm, eps)
        both, low_in = _adapted(normed, gate_up, a_in, b_in)
        gate, up = both.chunk(2, dim=1)
        opened = functional.silu(gate)
        out, low_out = _adapted(opened * up, down, a_out, b_out)
        ctx.save_for_backward(
            x, norm, inverse, normed, low_in, a_in, b_in, both, opened, low_out, a_out, b_out
        )
        ctx.gate_up, ctx.down = gate_up, down
        return out.add_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, inverse, normed, low_in, a_in, b_in, both, opened, *second = ctx.saved_tensors
        gate, up = both.chunk(2, dim=1)
        grad_active, grad_a_out, grad_b_out = _adapted_backward(
            ctx.down, grads[0], opened * up, *second
        )
        grad = torch.empty_like(both)
        grad_gate, grad_up = grad.chunk(2, dim=1)
        torch.mul(grad_active, opened, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad_active.mul_(up), gate, grad_input=grad_gate)
        grad_normed, grad_a_in, grad_b_in = _adapted_backward(
            ctx.gate_up, grad, normed, low_in, a_in, b_in
        )
        grad_x = _norm_backward(grad_normed, x, norm, inverse).add_(grads[0]).to(x.dtype)
        return grad_x, None, None, None, grad_a_in, grad_b_in, grad_a_out, grad_b_out, None
