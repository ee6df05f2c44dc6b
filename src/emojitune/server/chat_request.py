"""The body of `POST /chat/completions`.

All of OpenAI's parameters stand here, so that only a misspelt one is called unrecognized.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emojitune.chat.reply import ChatParameters
from emojitune.dataset.example import Message
from emojitune.server.parameters import Ignored, Refused
from emojitune.server.requests import Body, Metadata, refuse

_ABUSE = Ignored("it names a person to the hosted service's checks against abuse")
_CACHE = Ignored("the prefix cache finds common beginnings by itself")


def _not_built(*neutral: Any) -> Refused:
    return Refused("it isn't built yet", neutral)


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


_Text = Annotated[str, Field(min_length=1)]
_Stops = Annotated[list[_Text], Field(min_length=1, max_length=4)]


class TextPart(Body):
    """A piece of a message's content; pictures and sounds are not understood."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One message. What a reply of ours carries besides may be sent back with it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[TextPart], BeforeValidator(_as_parts)]
    name: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None

    def to_message(self) -> Message:
        return Message(self.role, "".join(part.text for part in self.content))


class StreamOptions(Body):
    """Whether a stream ends with its usage."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(Body):
    """What is asked of a model. `decoding`, `labels` and `alternatives` are ours."""

    model: str = Field(min_length=1)
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, ge=0, le=1)
    n: int = Field(1, ge=1, le=128)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Annotated[_Stops | None, BeforeValidator(_as_list)] = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    decoding: Literal["labels", "free"] | None = None
    labels: list[_Text] | None = Field(None, min_length=1)
    alternatives: int = Field(0, ge=0, le=20)

    user: Annotated[str | None, _ABUSE] = None
    safety_identifier: Annotated[str | None, Field(max_length=64), _ABUSE] = None
    service_tier: Annotated[Any, Ignored("one machine serves all requests alike")] = None
    prompt_cache_key: Annotated[str | None, _CACHE] = None
    prompt_cache_options: Annotated[Any, _CACHE] = None
    prompt_cache_retention: Annotated[Literal["in_memory", "24h"] | None, _CACHE] = None
    parallel_tool_calls: Annotated[bool | None, Ignored("there are no tool calls")] = None

    audio: Annotated[Any, Refused("replies are text")] = None
    modalities: Annotated[Any, Refused("replies are text", [["text"]])] = None
    moderation: Annotated[Any, Refused("nothing moderates")] = None
    prediction: Annotated[Any, Refused("no predicted output is used")] = None
    reasoning_effort: Annotated[Any, Refused("models do not reason apart")] = None
    verbosity: Annotated[Any, Refused("models have no verbosity")] = None
    web_search_options: Annotated[Any, Refused("nothing searches the web")] = None
    frequency_penalty: Annotated[Any, _not_built(0)] = None
    presence_penalty: Annotated[Any, _not_built(0)] = None
    logit_bias: Annotated[Any, _not_built({})] = None
    logprobs: Annotated[Any, _not_built(False)] = None
    top_logprobs: Annotated[Any, _not_built(0)] = None
    response_format: Annotated[Any, _not_built({"type": "text"})] = None
    store: Annotated[Any, _not_built(False)] = None
    tools: Annotated[Any, _not_built([])] = None
    tool_choice: Annotated[Any, _not_built("none")] = None
    functions: Annotated[Any, _not_built()] = None
    function_call: Annotated[Any, _not_built("none")] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            refuse(
                "invalid_parameter_combination",
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not "
                "supported. Leave one of them out.",
                "max_tokens",
            )
        if self.stream_options is not None and not self.stream:
            refuse(
                None,
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
                "stream_options",
            )
        if self.labels is not None and self.decoding == "free":
            refuse(
                "invalid_parameter_combination",
                "With 'labels' a reply is one of them, which 'decoding': 'free' forbids. "
                "Leave one of the two out.",
                "labels",
            )
        return self

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def prompt(self) -> tuple[Message, ...]:
        return tuple(message.to_message() for message in self.messages)

    @property
    def parameters(self) -> ChatParameters:
        return ChatParameters(
            max_tokens=self.max_tokens or self.max_completion_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stop=tuple(self.stop or ()),
            n=self.n,
            decoding=self.decoding,
            labels=tuple(self.labels or ()),
            alternatives=self.alternatives,
        )
