"""The result of a command: its exit code and output."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CommandResult:
    code: int
    out: str
    err: str


RunCommand = Callable[..., CommandResult]
