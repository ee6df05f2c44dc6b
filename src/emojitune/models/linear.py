"""x Wᵀ for frozen weights: the shape nearly all arithmetic here has."""

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_USUAL_ROWS = 256  # what the layout is chosen for; any number can be multiplied


class PackedLinear:
    """x Wᵀ for frozen weights W (out, in).

    oneDNN multiplies by bf16 weights in a layout of its own. Given them as they come, it converts
    them at each call: here it is done once. `weight` is what is kept of them.
    """

    def __init__(self, weight: Tensor) -> None:
        self._packed = (
            weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and bool(_ONEDNN)
        )
        if self._packed:
            pack = torch.ops.mkldnn._reorder_linear_weight
            weight = pack(weight, _USUAL_ROWS)
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (T, in) to (T, out)."""
        if not self._packed:
            return functional.linear(x, self.weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return out


class TrainableLinear(PackedLinear):
    """The same, and the way back of a gradient: `back` takes rows (T, out) to (T, in)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.input_grad = PackedLinear(weight.T)
