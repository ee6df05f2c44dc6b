"""Requests to chat models, and the events that answer them: values only, free of torch.

The server builds and reads these; `chat_model.py` computes the events.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from emojitune.dataset.example import Message
from emojitune.errors import EmojituneError
from emojitune.inference.decoding.params import SamplingParams, ToolUse

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """A request for the next message of a conversation.

    Attributes:
        messages: The conversation so far.
        sampling: How the tokens of the replies are sampled, and how many replies there are.
        json_schema: Constrains the replies to JSON that fits this schema.
        strict: The request is refused where the schema cannot be enforced in full; else replies are
            constrained as far as it can be.
        tools: Tools that the replies may call, or must.
        decoding: "labels" constrains the replies to the model's closed vocabulary, "free" does not;
            None stands for "labels" where the model has a vocabulary.
        labels: Constrains the replies to these texts instead, on any model.
        alternatives: How many of the best labels to rank beside each reply.
        probabilities: Whether to report their probability among all labels.
        owner: The prompt is cached for this owner alone: how much of it was cached says nothing
            about the prompts of others.
    """

    messages: Sequence[Message]
    sampling: SamplingParams = field(default_factory=SamplingParams)
    json_schema: Mapping[str, Any] | None = None
    strict: bool = False
    tools: ToolUse | None = None
    decoding: Literal["labels", "free"] | None = None
    labels: tuple[str, ...] = ()
    alternatives: int = 0
    probabilities: bool = True
    owner: Hashable = None

    @property
    def structured(self) -> bool:
        """Whether replies have a form: JSON, or calls."""
        return self.json_schema is not None or self.tools is not None


@dataclass(frozen=True, slots=True)
class Alternative:
    """A label that might have been the reply.

    Attributes:
        logprob: Joint log-probability of its tokens, by the model alone.
        probability: Its share of the probability of all labels, the training examples' part
            included where there are some, at most a hundredth too large; over the entire
            vocabulary, where that many were requested, the shares sum to 1. None where
            probabilities were not requested.
    """

    content: str
    logprob: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token with its log-probability under the model, before any sampling parameter.

    Attributes:
        bytes: The part of the reply that it spells; None for a special token, which spells none.
        top: The likeliest tokens in its place, the likeliest first.
    """

    token: str
    bytes: bytes | None
    logprob: float
    top: "tuple[TokenLogprob, ...]" = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of the `index`-th call of a reply; the first one has the `name`."""

    index: int
    arguments: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the reply `index`; the last one has a finish reason."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    tool_calls: tuple[ToolCallDelta, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens: the prompt's, counted once, the cached ones of these, and those of all replies."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


Event = Delta | Usage | EmojituneError
"""Deltas, and last the usage or the error that ended the replies."""

Listener = Callable[[Event], None]


class Generation:
    """A request that the model answers, until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        """Drop the request before the next pass: its client is no longer waiting."""
        self.cancelled = True


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector of length 1 for each input: (inputs, hidden_size), and the tokens of the inputs."""

    vectors: NDArray[np.float32]
    tokens: int


class InferenceModel(Protocol):
    """A model that answers requests: a `ChatModel`, for code that must not import torch."""

    @property
    def bytes(self) -> int:
        """Memory of its weights and caches; without the base model's, where it is an adapter."""
        ...

    @property
    def busy(self) -> bool:
        """Whether replies are computed with its weights, so that evicting it frees nothing yet."""
        ...

    def with_adapter(self, folder: Path) -> "InferenceModel":
        """The model of an adapter's folder, sharing the weights of this base."""
        ...

    def start(self, request: InferenceRequest, listener: Listener) -> Generation:
        """Begin to answer, and return at once; `listener` gets the events in another thread."""
        ...

    def count_tokens(self, request: InferenceRequest) -> int:
        """Tokens of the prompt, those of the chat template included."""
        ...

    def embed(
        self,
        inputs: Sequence[str | Sequence[int]],
        cancelled: Callable[[], bool],
        owner: Hashable = None,
    ) -> Embeddings | None:
        """Embed texts, or their token ids; blocks. None once `cancelled` returns True."""
        ...
