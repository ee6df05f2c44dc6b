"""The body of `POST /chat/completions`.

All of OpenAI's parameters are declared, so that only a misspelt one is called unrecognized.
"""

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emojitune.dataset.example import Message
from emojitune.inference.decoding.params import SamplingParams
from emojitune.inference.types import InferenceRequest
from emojitune.server.chat.messages import Parts, as_parts
from emojitune.server.chat.prompt import ChatPrompt
from emojitune.server.generation.request import ONE_TIER, GenerationRequest, refuse_without
from emojitune.server.http.json_bodies import StrictModel, nulls_dropped, refuse, refuse_type
from emojitune.server.http.unsupported import Ignored, Refused


def _as_stop_list(stop: Any) -> Any:
    if isinstance(stop, str):
        return [stop]
    if not isinstance(stop, list):
        refuse_type(stop, "one of a string or an array of strings")
    return stop


_Text = Annotated[str, Field(min_length=1)]
_Stops = Annotated[list[_Text], Field(min_length=1, max_length=4)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_MAX_BIASES = 4096
_Biases = Annotated[dict[str, _Bias], Field(max_length=_MAX_BIASES)]


class Prediction(StrictModel):
    """Text that the reply is expected to repeat for the most part."""

    type: Literal["content"] = Field(description="`content`.")
    content: Annotated[Parts, BeforeValidator(as_parts, json_schema_input_type=str | Parts)] = (
        Field(description="The text, or an array of text parts.")
    )


class StreamOptions(StrictModel):
    """Options of a stream."""

    include_usage: bool = Field(
        False, description="Whether the last chunk of the stream has its usage."
    )
    include_obfuscation: Annotated[
        bool, Ignored("it pads events against eavesdroppers on the way to the hosted service")
    ] = False


# `ChatPrompt` stands last so that its fields come first.
class ChatRequest(GenerationRequest, ChatPrompt):
    """The body of a request for a chat completion; `alternatives` and `probabilities` are ours."""

    max_tokens: int | None = Field(
        None, ge=1, description="The deprecated form of `max_completion_tokens`."
    )
    max_completion_tokens: int | None = Field(
        None,
        ge=1,
        description="Maximum number of tokens of a reply; if absent 1024, or what the context "
        "leaves, or an equal share of 32768 where `n` replies would have more together.",
    )
    n: int = Field(1, ge=1, le=128, description="Number of replies.")
    seed: int | None = Field(
        None,
        ge=-(2**63),
        le=2**63 - 1,
        description="Requests with the same seed sample the same replies.",
    )
    stop: Annotated[
        _Stops | None, BeforeValidator(_as_stop_list, json_schema_input_type=_Text | _Stops | None)
    ] = Field(
        None, description="Up to 4 stop sequences; a reply ends before the first one that occurs."
    )
    frequency_penalty: float = Field(
        0.0,
        ge=-2,
        le=2,
        description="Subtracted from a token's log-probability for each use in the reply so far.",
    )
    presence_penalty: float = Field(
        0.0,
        ge=-2,
        le=2,
        description="Subtracted from a token's log-probability once if the reply has used it.",
    )
    logit_bias: Annotated[_Biases, nulls_dropped(_Biases, most=_MAX_BIASES)] | None = Field(
        None, description="Added to the log-probabilities of tokens, by their ids in this model."
    )
    logprobs: bool = Field(
        False, description="Whether the log-probabilities of the reply's tokens are returned."
    )
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Number of the most likely tokens to return at each position.",
    )
    stream_options: StreamOptions | None = Field(None, description="Options of a stream.")
    store: bool = Field(False, description="Whether the completion can be retrieved later.")
    alternatives: int = Field(
        0,
        ge=0,
        le=2000,
        description="Number of the most likely labels to return beside the reply, each with the "
        "model's joint log-probability (`logprob`) and its share of the probability of all labels "
        "(`probability`), in which the training examples count, too.",
    )
    probabilities: bool = Field(
        True,
        description="Whether `alternatives` have a `probability`; without it they are found "
        "sooner, since fewer labels are scored.",
    )

    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast"] | None,
        ONE_TIER,
    ] = None
    prediction: Annotated[
        Prediction | None, Ignored("it makes the hosted service faster, and no reply another")
    ] = None

    audio: Annotated[Any, Refused("replies are text")] = None
    modalities: Annotated[Any, Refused("replies are text", [["text"]])] = None
    reasoning_effort: Annotated[
        Any, Refused("models do not reason apart from their reply", ["none", "medium"])
    ] = None
    verbosity: Annotated[Any, Refused("models have no verbosity to set", ["medium"])] = None
    web_search_options: Annotated[Any, Refused("nothing searches the web")] = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            refuse(
                "invalid_parameter_combination",
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not "
                "supported. Leave one of them out.",
                "max_tokens",
            )
        if self.stream_options is not None and not self.stream:
            refuse_without("stream_options", "'stream' is enabled")
        if self.top_logprobs is not None and not self.logprobs:
            refuse_without("top_logprobs", "'logprobs' is enabled")
        for key in self.logit_bias or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                refuse(
                    "invalid_value",
                    f"Invalid key in 'logit_bias': {key[:80]}. You should only be submitting "
                    "non-negative integers.",
                    "logit_bias",
                )
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def inference_request(self, messages: Sequence[Message], owner: Hashable) -> InferenceRequest:
        """The request as models take it."""
        return InferenceRequest(
            messages,
            self._sampling,
            json_schema=self.response_format.resolved_schema if self.response_format else None,
            strict=self.response_format is not None and self.response_format.strict,
            tools=self.tool_use,
            decoding=self.decoding,
            labels=tuple(self.labels or ()),
            alternatives=self.alternatives,
            probabilities=self.probabilities,
            owner=owner,
        )

    @property
    def _sampling(self) -> SamplingParams:
        return SamplingParams(
            n=self.n,
            max_tokens=self.max_tokens or self.max_completion_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(self.stop or ()),
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias={int(key): value for key, value in (self.logit_bias or {}).items()},
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )
