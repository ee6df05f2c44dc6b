"""x Wᵀ for frozen weights: the shape nearly all arithmetic here has."""

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
_USUAL_ROWS = 256  # what the layout is chosen for; any number can be multiplied


class Product:
    """x Wᵀ for frozen weights W (out, in).

    oneDNN multiplies by bf16 weights in a layout of its own. Given them as they come, it converts
    them at each call: here it is done once, at the price of a copy.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._packed: Tensor | None = None
        if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _ONEDNN:
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._packed = pack(weight.contiguous(), _USUAL_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (T, in) to (T, out)."""
        if self._packed is None:
            return functional.linear(x, self._weight)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")
        return out
