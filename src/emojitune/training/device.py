"""Moving values that hold tensors to the device that trains."""

from dataclasses import Field, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=_Dataclass)


def to_device(value: T, device: torch.device) -> T:
    """A frozen dataclass with its tensors, and those of dataclasses within it, on `device`."""
    moved = {field.name: _moved(getattr(value, field.name), device) for field in fields(value)}
    return replace(value, **moved)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    return to_device(value, device) if hasattr(value, "__dataclass_fields__") else value
