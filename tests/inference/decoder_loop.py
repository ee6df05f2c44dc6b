"""A decoder run to its end, as the scheduler runs it."""

from collections.abc import Callable
from typing import TypeVar

from emojitune.inference.engine.kv_cache import ForwardRequest, ForwardResult
from emojitune.inference.engine.scheduler import Decoder

T = TypeVar("T")
Forward = Callable[[list[ForwardRequest]], list[ForwardResult]]


def run_decoder(decoder: Decoder[T], forward: Forward) -> T:
    """The value that a decoder returns; `forward` computes the requests of each pass."""
    requests = next(decoder)
    while True:
        try:
            requests = decoder.send(forward(requests)) if requests else next(decoder)
        except StopIteration as stop:
            value: T = stop.value
            return value
