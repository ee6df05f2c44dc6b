"""The forward pass of a packed Llama with LoRA, with a backward pass by hand.

Autograd sees three functions a layer and the attention between them. The LoRA layers of one fused
linear are fused too: their A stacked, their B on the diagonal of one block matrix, so that the
small products are few. Everything runs in the dtype of the frozen weights; sums of squares in
float32.

Shapes: T tokens, C the width of the residual stream (hidden size), R the summed rank of a fused
linear, V the vocabulary's size.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from emojitune.models import lora
from emojitune.models.linear import TrainableLinear
from emojitune.models.llama import apply_rotary, rms_norm
from emojitune.models.packed_llama import PackedLlama
from emojitune.training.attention import attend
from emojitune.training.batches import Pack


class LlamaForward:
    """The forward pass of a packed Llama; leaves are the fused A and B of each linear, in order."""

    name = "the fast path for Llama-like models"

    def __init__(
        self, llama: PackedLlama[TrainableLinear], *, rank: int, alpha: float, seed: int
    ) -> None:
        self._llama = llama
        device, dtype = llama.embedding.device, llama.embedding.dtype
        self.state: Mapping[str, Tensor] = lora.init_state(
            llama.linear_shapes, rank=rank, seed=seed, device=device
        )
        self._fused = _FusedLora(
            [
                [(self.state[f"{name}.lora_A"], self.state[f"{name}.lora_B"]) for name in names]
                for names in llama.fused_names
            ],
            alpha / rank,
            dtype,
        )

    def leaves(self) -> list[Tensor]:
        """A (R, in) and B (R, out) of each fused linear, with the current values of `state`."""
        return self._fused.leaves()

    def assign_grads(self, grads: Sequence[Tensor]) -> None:
        """Set the gradients of `state` from those of the leaves."""
        self._fused.assign_grads(grads)

    def logits(self, row: Pack, leaves: Sequence[Tensor]) -> Tensor:
        """Logits at the `logits_indices` of a row, (len(logits_indices), V)."""
        llama = self._llama
        cos, sin = llama.rotary(row.positions[0])
        x = functional.embedding(row.ids[0], llama.embedding)
        for number, layer in enumerate(llama.layers):
            a_qkv, b_qkv, a_out, b_out, *mlp = leaves[8 * number : 8 * number + 8]
            to_qkv, to_out, to_gate_up, to_down = layer.linears
            qkv = _apply(
                _NormQkv, x, layer.input_norm, to_qkv, a_qkv, b_qkv,
                llama.eps, cos, sin, llama.rotary_columns,
            )  # fmt: skip
            qkv = qkv.view(len(qkv), -1, llama.head_dim)
            attended = attend(qkv, llama.heads, row.layout, llama.head_dim**-0.5)
            if number == len(llama.layers) - 1:  # no token attends to another any more
                attended, x = (
                    attended.index_select(0, row.logits_indices),
                    x.index_select(0, row.logits_indices),
                )
            x = _apply(_Out, attended, x, to_out, a_out, b_out)
            x = _apply(_Mlp, x, layer.mlp_norm, to_gate_up, to_down, *mlp, llama.eps)
        return _apply(_Head, x, llama.final_norm, llama.lm_head, llama.eps)


class _FusedLora:
    """LoRA layers by fused linear: their A stacked (R, in), their B as blocks of (R, out).

    Copies between the layers and the fused matrices are a few `_foreach` calls: one by one, they
    would be hundreds of operations a step.
    """

    def __init__(
        self, linears: Sequence[Sequence[tuple[Tensor, Tensor]]], scale: float, dtype: torch.dtype
    ) -> None:
        """`linears` are A (rank, in) and B (out, rank) of each layer of each fused linear."""
        self._a, self._b = (
            [layer[side] for layers in linears for layer in layers] for side in (0, 1)
        )
        self._slices = [list(_slices(layers)) for layers in linears]
        self._scale = scale
        with torch.no_grad():
            fused = [lora.fuse([(a, b, scale) for a, b in layers], dtype) for layers in linears]
        self._leaves = [side for pair in fused for side in pair]
        self._a_views, self._b_views = self._layer_views(self._leaves)

    @torch.no_grad()
    def leaves(self) -> list[Tensor]:
        """A (R, in) and B (R, out) of each linear, with the current values of the layers."""
        torch._foreach_copy_(self._a_views, self._a)
        torch._foreach_copy_(self._b_views, torch._foreach_mul(self._b, self._scale))
        return [side.requires_grad_() for side in self._leaves]

    @torch.no_grad()
    def assign_grads(self, grads: Sequence[Tensor]) -> None:
        """Set the gradients of the layers from those of the leaves, in float32."""
        of_a, of_b = self._layer_views(grads)
        scaled = [torch.empty_like(b) for b in self._b]
        torch._foreach_copy_(scaled, of_b)
        torch._foreach_mul_(scaled, self._scale)
        for layer, grad in zip((*self._a, *self._b), (*of_a, *scaled), strict=True):
            layer.grad = grad

    def _layer_views(self, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The part of each layer in A and B of each linear, in the layer's shape, as views."""
        a, b = [], []
        for number, slices in enumerate(self._slices):
            for rows, columns in slices:
                a.append(leaves[2 * number].detach()[rows])
                b.append(leaves[2 * number + 1].detach()[rows, columns].T)
        return a, b


def _slices(layers: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[slice, slice]]:
    """For each layer of a fused linear, its rows of A and B and its columns of B."""
    row = column = 0
    for a, b in layers:
        yield slice(row, row + len(a)), slice(column, column + len(b))
        row, column = row + len(a), column + len(b)


def _apply(function: type[Function], *inputs: Any) -> Tensor:
    return function.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]


def _lora_linear(x: Tensor, linear: TrainableLinear, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """x Wᵀ + x Aᵀ B (T, out), and x Aᵀ (T, R), for x (T, in)."""
    low = x @ a.T
    return linear(x).addmm_(low, b), low


def _lora_linear_backward(
    linear: TrainableLinear, grad: Tensor, x: Tensor, low: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x (T, in), A (R, in) and B (R, out), for one of the output (T, out)."""
    grad_low = grad @ b.T
    return linear.input_grad(grad).addmm_(grad_low, a), grad_low.T @ x, low.T @ grad


def _rms_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    """The gradient of RMSNorm's input x (T, C); in float32, unless a GPU's kernel computes it."""
    if x.is_cuda:
        backward = torch.ops.aten._fused_rms_norm_backward
        fused: Tensor = backward(grad, x, weight.shape, inverse, weight, (True, False))[0]
        return fused
    unit = x * inverse
    scaled = grad * weight.float()
    along = (scaled * unit).mean(-1, keepdim=True)
    return scaled.sub_(unit.mul_(along)).mul_(inverse)


class _Head(Function):
    """The final norm and the output head, both frozen: (T, C) to (T, V)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, head: TrainableLinear, eps: float) -> Tensor:
        normed, inverse = rms_norm(x, norm, eps)
        ctx.save_for_backward(x, norm, inverse)
        ctx.lm_head = head
        return head(normed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, inverse = ctx.saved_tensors
        grad_x = _rms_norm_backward(ctx.lm_head.input_grad(grads[0]), x, norm, inverse)
        return grad_x.to(x.dtype), None, None, None


class _NormQkv(Function):
    """Norm, the linear for q, k and v, and the rotation of queries and keys, for x (T, C)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, linear: TrainableLinear, a: Tensor, b: Tensor,
        eps: float, cos: Tensor, sin: Tensor, rotary_columns: int,
    ) -> Tensor:  # fmt: skip
        normed, inverse = rms_norm(x, norm, eps)
        qkv, low = _lora_linear(normed, linear, a, b)
        apply_rotary(qkv[:, :rotary_columns], cos, sin)
        ctx.save_for_backward(x, norm, inverse, normed, low, a, b, cos, sin)
        ctx.linear, ctx.rotary_columns = linear, rotary_columns
        return qkv

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, inverse, *first, cos, sin = ctx.saved_tensors
        grad = grads[0].contiguous()
        apply_rotary(grad[:, : ctx.rotary_columns], cos, -sin)
        grad_normed, grad_a, grad_b = _lora_linear_backward(ctx.linear, grad, *first)
        grad_x = None
        if ctx.needs_input_grad[0]:  # not in the first layer: embeddings are frozen
            grad_x = _rms_norm_backward(grad_normed, x, norm, inverse).to(x.dtype)
        return grad_x, None, None, grad_a, grad_b, None, None, None, None


class _Out(Function):
    """The output projection of attention, added to the residual stream (T, C)."""

    @staticmethod
    def forward(
        ctx: Any, attended: Tensor, residual: Tensor, linear: TrainableLinear, a: Tensor, b: Tensor
    ) -> Tensor:
        out, low = _lora_linear(attended, linear, a, b)
        ctx.save_for_backward(attended, low, a, b)
        ctx.linear = linear
        return out.add_(residual)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_attended, grad_a, grad_b = _lora_linear_backward(
            ctx.linear, grads[0], *ctx.saved_tensors
        )
        return grad_attended, grads[0], None, grad_a, grad_b


class _Mlp(Function):
    """Norm, gate and up, SwiGLU and down, added to the residual stream (T, C)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, gate_up: TrainableLinear, down: TrainableLinear,
        a_in: Tensor, b_in: Tensor, a_out: Tensor, b_out: Tensor, eps: float,
    ) -> Tensor:  # fmt: skip
        normed, inverse = rms_norm(x, norm, eps)
        both, low_in = _lora_linear(normed, gate_up, a_in, b_in)
        gate, up = both.chunk(2, dim=1)
        activated = functional.silu(gate)
        out, low_out = _lora_linear(activated * up, down, a_out, b_out)
        ctx.save_for_backward(
            x, norm, inverse, normed, low_in, a_in, b_in, both, activated, low_out, a_out, b_out
        )
        ctx.gate_up, ctx.down = gate_up, down
        return out.add_(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, norm, inverse, normed, low_in, a_in, b_in, both, activated, *second = ctx.saved_tensors
        gate, up = both.chunk(2, dim=1)
        grad_activated, grad_a_out, grad_b_out = _lora_linear_backward(
            ctx.down, grads[0], activated * up, *second
        )
        grad = torch.empty_like(both)
        grad_gate, grad_up = grad.chunk(2, dim=1)
        torch.mul(grad_activated, activated, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad_activated.mul_(up), gate, grad_input=grad_gate)
        grad_normed, grad_a_in, grad_b_in = _lora_linear_backward(
            ctx.gate_up, grad, normed, low_in, a_in, b_in
        )
        grad_x = _rms_norm_backward(grad_normed, x, norm, inverse).add_(grads[0]).to(x.dtype)
        return grad_x, None, None, None, grad_a_in, grad_b_in, grad_a_out, grad_b_out, None
