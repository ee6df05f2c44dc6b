"""Computations in slices: other work may be done between any two of them.

A slice is what cannot be interrupted, so it decides how long others wait: in a forward pass it is
one layer. Where its owner has many computations, owners take turns.
"""

from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterable
from contextlib import suppress
from itertools import count as counter
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

Slices = Generator[None, None, T]
"""A computation that yields after each of its slices, and returns its result."""


class Owned(Protocol):
    """Anything that is done for somebody: a project, to the server."""

    @property
    def owner(self) -> Hashable: ...


OwnedT = TypeVar("OwnedT", bound=Owned)


def compute(slices: Slices[T]) -> T:
    """The result of all slices, one after the other."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: T = end.value
            return result


def take_turns(items: Iterable[OwnedT]) -> list[OwnedT]:
    """The first item of each owner, then the second of each, and so on."""
    turns: defaultdict[Hashable, counter[int]] = defaultdict(counter)
    return sorted(items, key=lambda item: next(turns[item.owner]))


class SlicedComputation(Generic[T]):
    """A queued or running computation, and what becomes of its result."""

    def __init__(
        self,
        slices: Slices[T],
        owner: Hashable,
        *,
        on_result: Callable[[T], None],
        on_error: Callable[[Exception], None],
        on_cancel: Callable[[], object] = lambda: None,
        cancelled: Callable[[], bool],
    ) -> None:
        self.owner = owner
        self._slices = slices
        self._on_result = on_result
        self._on_error = on_error
        self._on_cancel = on_cancel
        self._cancelled = cancelled

    def advance(self) -> bool:
        """Compute one slice; False if it was the last."""
        try:
            next(self._slices)
        except StopIteration as end:
            self._on_result(end.value)
            return False
        except Exception as error:
            self._on_error(error)
            return False
        return True

    def fail(self, error: Exception) -> None:
        """End it with an error from outside."""
        with suppress(Exception):
            self._slices.close()
        self._on_error(error)

    def close_if_cancelled(self) -> bool:
        """Release what a cancelled computation holds; True if it was cancelled."""
        if not self._cancelled():
            return False
        self._slices.close()
        self._on_cancel()
        return True
