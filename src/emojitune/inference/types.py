"""What a chat request asks and what it is told: values only, free of torch.

The server builds and reads these; `completion.py` makes them come true.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError
from emojitune.inference.decoding.params import ToolUse

FinishReason = Literal["stop", "length", "tool_calls"]


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
        frequency_penalty: What each earlier use of a token takes from its log-probability.
        presence_penalty: What having been used at all takes from it.
        logit_bias: What is added to the log-probability of a token, by its id.
        top_logprobs: How many likeliest tokens are told beside each token of the reply; None tells
            no log-probabilities at all.
        json_schema: The reply is JSON that fits this schema.
        strict: It fits all of it, or is refused; else it fits as much as can be held to.
        tools: The reply may, or must, call tools.
        decoding: "labels" holds the reply to the model's vocabulary, "free" does not; None means
            labels where the model has a vocabulary.
        labels: Holds the reply to these texts instead, on any model.
        alternatives: How many best labels to rank besides the reply.
        probabilities: Whether to tell how probable they are among all labels.
        owner: Whose request it is. Prompts are remembered for their owner alone: how many tokens
            of one were known tells nobody what another has asked.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int = 1
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    strict: bool = False
    tools: ToolUse | None = None
    decoding: Literal["labels", "free"] | None = None
    labels: tuple[str, ...] = ()
    alternatives: int = 0
    probabilities: bool = True
    owner: Hashable = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A label that might have been the reply.

    Attributes:
        logprob: Joint log-probability of its tokens, by the model alone.
        probability: Its share of the probability of all labels, weighed by examples where there are
            some, at most a hundredth too large; over the whole vocabulary, where that was asked
            for, the shares sum to 1. None where nobody asked.
    """

    content: str
    logprob: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its log-probability under the model, before any sampling parameter.

    Attributes:
        bytes: What it adds to the reply; None for a special token, which adds nothing.
        top: The likeliest tokens in its place, the likeliest first.
    """

    token: str
    bytes: bytes | None
    logprob: float
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the `index`-th call of a reply; `name` stands on its first piece only."""

    index: int
    arguments: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the reply `index`; the last one has a finish reason."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()


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
class Embeddings:
    """A vector of length 1 for each input (inputs, dimensions), and the tokens that went in."""

    vectors: NDArray[np.float32]
    tokens: int


class InferenceModel(Protocol):
    """What replies to a request: a ChatModel, once it is loaded."""

    @property
    def bytes(self) -> int:
        """What it takes in memory; without the base, where it lies beside one."""
        ...

    @property
    def busy(self) -> bool:
        """Whether to give it up would free nothing yet: replies are made with its weights."""
        ...

    def start(
        self, messages: Sequence[Message], parameters: ChatParameters, listener: Listener
    ) -> Generation: ...

    def count_tokens(self, messages: Sequence[Message], parameters: ChatParameters) -> int:
        """Tokens of the prompt that these messages make."""
        ...

    def embed(
        self, inputs: Sequence[str | Sequence[int]], cancelled: Callable[[], bool]
    ) -> Embeddings | None:
        """Texts, or their token ids, as vectors; blocks. None once `cancelled` says so."""
        ...
