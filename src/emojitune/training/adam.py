"""Adam (Kingma and Ba, 2015, arXiv:1412.6980): torch's fused kernel without its Optimizer class.

The first `torch.optim.Optimizer` of a process imports torch's compiler, which takes longer than a
training step and is not used here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_MEAN_DECAY, _SQUARE_DECAY = 0.9, 0.999
_EPSILON = 1e-8


class Adam:
    """Adam without weight decay, for all tensors of `state` at once.

    Moments start at zero. All tensors are on one device.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        self._moments = {
            f"{name}.{moment}": torch.zeros_like(tensor)
            for name, tensor in state.items()
            for moment in ("exp_avg", "exp_avg_sq")
        }
        # The kernel reads a step count for each tensor, though they are all equal.
        self._counts = [torch.zeros((), device=tensor.device) for tensor in state.values()]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update each tensor by its `grad`."""
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
        """First and second moments, in the shapes of their tensors, as `NAME.exp_avg` and
        `NAME.exp_avg_sq`; not copied."""
        return self._moments

    @torch.no_grad()
    def restore(self, moments: Mapping[str, Tensor], steps: int) -> None:
        """Resume with the moments of an optimizer after `steps` steps."""
        for name, moment in self._moments.items():
            moment.copy_(moments[name])
        for count in self._counts:
            count.fill_(steps)
