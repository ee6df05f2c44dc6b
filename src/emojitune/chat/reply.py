"""What a chat request asks and what it is told: values only, free of torch.

The server builds and reads these; `completion.py` makes them come true.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ChatParameters:
    """What a request may choose.

    Attributes:
        max_tokens: Of one reply; None stands for 1024, or less where the context ends.
        temperature: 0 takes the most probable.
        top_p: Nucleus: draw only from the most probable that together hold this much.
        seed: Same seed, same draws.
        stop: A reply ends before the first of these.
        n: Replies to make.
        decoding: "labels" holds the reply to the model's vocabulary, "free" does not; None means
            labels where the model has a vocabulary.
        labels: Holds the reply to these texts instead, on any model.
        alternatives: How many best labels to rank besides the reply.
        json_schema: Holds the reply to JSON that this schema allows.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    decoding: Literal["labels", "free"] | None = None
    labels: tuple[str, ...] = ()
    alternatives: int = 0
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A label that might have been the reply, with its joint log-probability."""

    content: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the reply `index`; the last one has a finish reason."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens: the prompt's, counted once, those of it that were cached, and all replies'."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


Listener = Callable[[Delta | Usage | EmojituneError], None]


class Generation:
    """A reply in the making."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        """Nobody listens any more: the engine drops the request before its next pass."""
        self.cancelled = True


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector of length 1 for each input (inputs, dimensions), and the tokens that went in."""

    vectors: NDArray[np.float32]
    tokens: int


class Replier(Protocol):
    """What replies to a request: a ChatModel, once it is loaded."""

    def start(
        self, messages: Sequence[Message], parameters: ChatParameters, listener: Listener
    ) -> Generation: ...

    def count_tokens(self, messages: Sequence[Message], parameters: ChatParameters) -> int:
        """Tokens of the prompt that these messages make."""
        ...

    def embed(
        self, inputs: Sequence[str | Sequence[int]], cancelled: Callable[[], bool]
    ) -> Embedded | None:
        """Texts, or their token ids, as vectors; blocks. None once `cancelled` says so."""
        ...
