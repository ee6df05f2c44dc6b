"""The body of `POST /chat/completions`: which parameters work, have no effect, or aren't built.

All of OpenAI's parameters are known here, so that only a misspelt one is called unrecognized.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from emojitune.chat.reply import ChatParameters
from emojitune.dataset.example import Message
from emojitune.server.requests import Body, Metadata, refuse

# Accepted and not looked at: they tell the hosted service something that has no meaning here.
_WITHOUT_EFFECT = frozenset(
    {
        "user",
        "safety_identifier",
        "service_tier",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    }
)

# Not built yet; the values beside each ask for nothing, and are accepted.
_NOT_BUILT: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": (),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}


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

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name, neutral in _NOT_BUILT.items():
            if data.get(name) is not None and data[name] not in neutral:
                refuse(
                    "unsupported_parameter",
                    f"Unsupported parameter: '{name}' isn't built here yet. Leave it out.",
                    name,
                )
        ignored = _WITHOUT_EFFECT.union(_NOT_BUILT)
        return {name: value for name, value in data.items() if name not in ignored}

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
