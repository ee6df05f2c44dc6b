"""Linear layers with frozen weights, packed for the processor: nearly all arithmetic is theirs."""

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_TYPICAL_ROWS = 256  # the layout is chosen for this number; any can be multiplied


class PackedLinear:
    """x Wᵀ for frozen weights W (out, in).

    oneDNN multiplies by bfloat16 weights in a layout of its own. Given plain tensors, it converts
    them at each call; here they are packed once. `weight` is W, packed where that applies.
    """

    def __init__(self, weight: Tensor) -> None:
        self._packed = (
            weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and bool(_ONEDNN)
        )
        if self._packed:
            pack = torch.ops.mkldnn._reorder_linear_weight
            weight = pack(weight, _TYPICAL_ROWS)
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (T, in) to (T, out)."""
        if not self._packed:
            return functional.linear(x, self.weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return out


class TrainableLinear(PackedLinear):
    """A packed linear layer that also propagates gradients to its input: `input_grad` maps rows
    (T, out) to (T, in). A second copy of the weights is packed for it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.input_grad = PackedLinear(weight.T)
