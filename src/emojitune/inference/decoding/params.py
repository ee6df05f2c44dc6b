"""Decoding's parameters: values only, free of torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from emojitune.dataset.tool_format import Tool


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of a request's replies are sampled; one value from the edge to the sampler.

    Attributes:
        n: Replies to one prompt.
        max_tokens: Limit of one reply; None leaves it to the model's context. A decoder takes the
            number alone.
        temperature: 0 takes the most probable token, or label.
        top_p: Nucleus: only the most probable tokens that together hold this much are sampled.
        seed: Equal seeds sample equal replies; None seeds at random.
        stop: A reply ends before the first of these texts that occurs; the detokenizer finds them.
        frequency_penalty: Subtracted from a token's log-probability for each earlier use.
        presence_penalty: Subtracted once from that of each token already used.
        logit_bias: Added to the log-probabilities of tokens, by their ids.
        top_logprobs: How many of the likeliest tokens to report beside each token of a reply; None
            reports no log-probabilities.
    """

    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools of a request, and how a reply may call them.

    Attributes:
        choice: "auto" leaves calling to the model, "required" demands a call, "named" one call of
            the only tool.
        parallel: Whether one reply may call several times.
    """

    tools: tuple[Tool, ...]
    choice: Literal["auto", "required", "named"] = "auto"
    parallel: bool = True
