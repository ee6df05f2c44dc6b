"""The body of `POST /chat/completions`.

All of OpenAI's parameters stand here, so that only a misspelt one is called unrecognized.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from emojitune.dataset.example import Message
from emojitune.inference.decoding.params import ToolUse
from emojitune.inference.types import ChatParameters
from emojitune.server.chat.messages import ChatMessage, Parts, as_parts, check_order, mentions_json
from emojitune.server.generation.formats import (
    FunctionCallMode,
    FunctionDefinition,
    Labels,
    NamedFunction,
    ResolvedToolChoice,
    ResponseFormat,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
    expand_choice,
    resolve_tools,
)
from emojitune.server.http.json_bodies import (
    Metadata,
    StrictModel,
    nulls_dropped,
    refuse,
    refuse_type,
)
from emojitune.server.http.unsupported import Ignored, Refused

_ABUSE = Ignored("it names a person to the hosted service's checks against abuse")
_CACHE = Ignored("the prefix cache finds common beginnings by itself")


def _as_stop_list(stop: Any) -> Any:
    if isinstance(stop, str):
        return [stop]
    if not isinstance(stop, list):
        refuse_type(stop, "one of a string or an array of strings")
    return stop


def _from_function_call(choice: Any) -> Any:
    """`function_call` in the form of `tool_choice`."""
    if isinstance(choice, dict):
        if choice.get("name") is None:
            refuse("missing_required_parameter", "Missing required parameter: '{param}'.", ".name")
        return {"type": "function", "function": choice}
    return expand_choice(choice, get_args(FunctionCallMode))


_Text = Annotated[str, Field(min_length=1)]
_Stops = Annotated[list[_Text], Field(min_length=1, max_length=4)]
_Bias = Annotated[float, Field(ge=-100, le=100)]


class Prediction(StrictModel):
    """Text that much of the reply is expected to repeat."""

    type: Literal["content"] = Field(description="`content`.")
    content: Annotated[Parts, BeforeValidator(as_parts, json_schema_input_type=str | Parts)] = (
        Field(description="The text, or an array of text parts.")
    )


class CacheOptions(StrictModel):
    """How the hosted service keeps a prompt."""

    mode: Literal["implicit", "explicit"] | None = Field(
        None, description="Whether it chooses by itself what is kept."
    )
    ttl: Literal["30m"] | None = Field(None, description="How long that is kept at least.")


class StreamOptions(StrictModel):
    """How a stream is sent."""

    include_usage: bool = Field(False, description="Whether it ends with its usage.")
    include_obfuscation: Annotated[
        bool, Ignored("it pads events against eavesdroppers on the way to the hosted service")
    ] = False


class ChatRequest(StrictModel):
    """What is asked of a model. `decoding`, `labels` and `alternatives` are ours."""

    model: str = Field(min_length=1, description="A base model, an alias or a fine-tuned model.")
    messages: list[ChatMessage] = Field(min_length=1, description="The conversation so far.")
    max_tokens: int | None = Field(
        None, ge=1, description="The most tokens of one reply; the older name."
    )
    max_completion_tokens: int | None = Field(
        None,
        ge=1,
        description="The most tokens of one reply; if absent 1024, or what the context leaves, or "
        "a share of 32768 where `n` replies would have more together.",
    )
    temperature: float = Field(
        1.0, ge=0, le=2, description="0 takes the most probable, more varies."
    )
    top_p: float = Field(
        1.0, ge=0, le=1, description="Draws only from the likeliest that together hold this much."
    )
    n: int = Field(1, ge=1, le=128, description="How many replies.")
    seed: int | None = Field(
        None, ge=-(2**63), le=2**63 - 1, description="The same seed, the same draws."
    )
    stop: Annotated[
        _Stops | None, BeforeValidator(_as_stop_list, json_schema_input_type=_Text | _Stops | None)
    ] = Field(None, description="Up to 4 texts before the first of which a reply ends.")
    frequency_penalty: float = Field(
        0.0, ge=-2, le=2, description="Taken from a token's log-probability for each earlier use."
    )
    presence_penalty: float = Field(
        0.0, ge=-2, le=2, description="Taken from it once, if the reply has used it."
    )
    logit_bias: Annotated[dict[str, _Bias], nulls_dropped(dict[str, _Bias])] | None = Field(
        None, description="Added to the log-probability of tokens, by their id in this model."
    )
    logprobs: bool = Field(False, description="Whether log-probabilities of tokens are told.")
    top_logprobs: int | None = Field(
        None, ge=0, le=20, description="How many likeliest tokens to tell in each place."
    )
    response_format: ResponseFormat | None = Field(
        None, description="Text, or JSON that is held to a schema."
    )
    tools: Annotated[list[ToolDefinition], Field(max_length=128)] | None = Field(
        None, description="Functions that the model may ask to be called."
    )
    tool_choice: Annotated[
        ToolChoice | None,
        BeforeValidator(expand_choice, json_schema_input_type=ToolChoiceMode | ToolChoice | None),
    ] = Field(None, description="Whether a tool is called, and which; `auto` if absent.")
    parallel_tool_calls: bool | None = Field(
        None, description="Whether one reply may hold several calls; true if absent."
    )
    functions: list[FunctionDefinition] | None = Field(
        None, min_length=1, max_length=128, description="The deprecated form of `tools`."
    )
    function_call: Annotated[
        ToolChoice | None,
        BeforeValidator(
            _from_function_call, json_schema_input_type=FunctionCallMode | NamedFunction | None
        ),
    ] = Field(None, description="The deprecated form of `tool_choice`.")
    stream: bool = Field(False, description="Whether the reply is sent piece by piece.")
    stream_options: StreamOptions | None = Field(None, description="How a stream is sent.")
    store: bool = Field(False, description="Whether the completion can be retrieved later.")
    metadata: Metadata | None = Field(None, description="Up to 16 texts by name, to find it by.")
    decoding: Literal["labels", "free"] | None = Field(
        None,
        description="`labels` holds the reply to the model's closed vocabulary, as is usual "
        "where it has one; `free` does not.",
    )
    labels: Labels = None
    alternatives: int = Field(
        0,
        ge=0,
        le=2000,
        description="How many best labels to tell besides the reply, the likeliest first, each "
        "with the model's joint log-probability of it (`logprob`) and its share of all labels' "
        "probability (`probability`), which the training examples are part of.",
    )
    probabilities: bool = Field(
        True,
        description="Whether `alternatives` tell their `probability`; they are found sooner "
        "without, since fewer labels need to be looked at.",
    )

    user: Annotated[str | None, _ABUSE] = None
    safety_identifier: Annotated[str | None, Field(max_length=64), _ABUSE] = None
    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast"] | None,
        Ignored("one machine serves all requests alike"),
    ] = None
    prompt_cache_key: Annotated[str | None, _CACHE] = None
    prompt_cache_options: Annotated[CacheOptions | None, _CACHE] = None
    prompt_cache_retention: Annotated[Literal["in_memory", "24h"] | None, _CACHE] = None
    prediction: Annotated[
        Prediction | None, Ignored("it makes the hosted service faster, and no reply another")
    ] = None

    audio: Annotated[Any, Refused("replies are text")] = None
    modalities: Annotated[Any, Refused("replies are text", [["text"]])] = None
    moderation: Annotated[Any, Refused("nothing moderates")] = None
    reasoning_effort: Annotated[
        Any, Refused("models do not reason apart from their reply", ["none", "medium"])
    ] = None
    verbosity: Annotated[Any, Refused("models have no verbosity to set", ["medium"])] = None
    web_search_options: Annotated[Any, Refused("nothing searches the web")] = None

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self._check_lengths_and_stream()
        self._check_tools()
        self._check_format()
        check_order(self.messages)
        return self

    def _check_lengths_and_stream(self) -> None:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            refuse(
                "invalid_parameter_combination",
                "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not "
                "supported. Leave one of them out.",
                "max_tokens",
            )
        if self.stream_options is not None and not self.stream:
            _refuse_without("stream_options", "'stream' is enabled")
        if self.top_logprobs is not None and not self.logprobs:
            _refuse_without("top_logprobs", "'logprobs' is enabled")
        for key in self.logit_bias or {}:
            if not (key.isascii() and key.isdigit() and len(key) < 10):
                refuse(
                    "invalid_value",
                    f"Invalid key in 'logit_bias': {key[:80]}. You should only be submitting "
                    "non-negative integers.",
                    "logit_bias",
                )

    def _check_tools(self) -> None:
        if self.tools and self.functions:
            refuse(
                "invalid_parameter_combination",
                "'functions' is the deprecated form of 'tools', and not allowed beside it. Leave "
                "'functions' out.",
                "functions",
            )
        if self.tool_choice is not None and not self.tools:
            _refuse_without("tool_choice", "'tools' are specified")
        if self.parallel_tool_calls is False and not self.tools:
            _refuse_without("parallel_tool_calls", "'tools' are specified")
        if self.function_call is not None and not self.functions:
            _refuse_without("function_call", "'functions' are specified")
        _ = self.tool_use  # a choice may name a tool that is not there

    def _check_format(self) -> None:
        asked = self.response_format
        if asked is not None and asked.type == "json_object" and not mentions_json(self.messages):
            refuse(
                None,
                "'messages' must contain the word 'json' in some form, to use 'response_format' "
                "of type 'json_object'.",
                "messages",
            )
        if self.labels is not None and self.decoding == "free":
            refuse(
                "invalid_parameter_combination",
                "With 'labels' a reply is one of them, which 'decoding': 'free' forbids. "
                "Leave one of the two out.",
                "labels",
            )

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def tool_use(self) -> ToolUse | None:
        if self.functions:
            choice = _resolved(self.function_call)
            return resolve_tools(self.functions, choice, parallel=False, param="function_call")
        functions = [tool.function for tool in self.tools or ()]
        parallel = self.parallel_tool_calls is not False
        return resolve_tools(functions, _resolved(self.tool_choice), parallel)

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
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            logit_bias={int(key): value for key, value in (self.logit_bias or {}).items()},
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            json_schema=self.response_format.resolved_schema if self.response_format else None,
            strict=self.response_format is not None and self.response_format.strict,
            tools=self.tool_use,
            decoding=self.decoding,
            labels=tuple(self.labels or ()),
            alternatives=self.alternatives,
            probabilities=self.probabilities,
        )


def _resolved(choice: ToolChoice | None) -> ResolvedToolChoice:
    return choice.resolved if choice else ResolvedToolChoice()


def _refuse_without(param: str, condition: str) -> None:
    refuse(None, f"The '{param}' parameter is only allowed when {condition}.", param)
