"""Adam, the optimizer: torch's own kernel, without torch's Optimizer around it.

The first `torch.optim.Optimizer` of a process imports torch's compiler, which takes longer than a
step of training and is used for nothing here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.999
_EPSILON = 1e-8


class Adam:
    """Adam (Kingma and Ba, 2015) without weight decay, for all tensors of `state` at once.

    Moments start at zero; all tensors are of one device.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        self._moments = {
            f"{name}.{moment}": torch.zeros_like(tensor)
            for name, tensor in state.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        # The kernel reads a count for each tensor, though they are all the same.
        self._counts = [torch.zeros((), device=tensor.device) for tensor in state.values()]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Move each tensor by its `grad`."""
        tensors = list(self._state.values())
        gradients: list[Any] = [tensor.grad for tensor in tensors]
        moments = list(self._moments.values())
        torch._foreach_add_(self._counts, 1)
        torch._fused_adam_(
            tensors,
            gradients,
            moments[::2],
            moments[1::2],
            [],
            self._counts,
            lr=learning_rate,
            beta1=_MEAN_DECAY,
            beta2=_SQUARE_DECAY,
            weight_decay=0.0,
            eps=_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def moments(self) -> Mapping[str, Tensor]:
        """Means of gradients and of their squares, as `NAME.exp_avg` and `NAME.exp_avg_sq`."""
        return self._moments

    @torch.no_grad()
    def restore(self, moments: Mapping[str, Tensor], steps: int) -> None:
        """Go on from the moments that there were after so many steps."""
        for name, moment in self._moments.items():
            moment.copy_(moments[name])
        for count in self._counts:
            count.fill_(steps)
