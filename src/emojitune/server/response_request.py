"""The bodies of `POST /responses` and `POST /responses/input_tokens`.

All of OpenAI's parameters stand here, so that only a misspelt one is called unrecognized.
"""

import re
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emojitune.chat.reply import ChatParameters
from emojitune.server.parameters import Ignored, Refused
from emojitune.server.requests import Body, Metadata, refuse
from emojitune.server.response_items import Input

_ABUSE = Ignored("it names a person to the hosted service's checks against abuse")
_CACHE = Ignored("the prefix cache finds common beginnings by itself")
_NO_CALLS = Ignored("there are no tool calls")
_NO_TOOLS = "a response is text, and no tool can be called"
_NO_REASONING = "models do not reason apart"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Include = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


NO_LOGPROBS = (
    "Unsupported value in 'include': 'message.output_text.logprobs'. Here responses carry no "
    "log-probabilities. Leave it out, or ask for 'logprobs' of a chat completion."
)


def hides_nothing(include: list[Include] | None) -> bool:
    """Whether all that is to be included is there: most of it belongs to things that never are."""
    return "message.output_text.logprobs" not in (include or ())


class TextFormat(Body):
    """What kind of text a reply is."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="Any text, any JSON object, or JSON that a schema allows."
    )
    name: str | None = Field(None, description="A name for the schema; needed with one.")
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The JSON schema, for json_schema."
    )
    description: Annotated[
        str | None,
        Ignored("the schema itself says it"),
        Field(description="What the format is for."),
    ] = None
    strict: Annotated[
        bool | None,
        Ignored("every schema is held to, strict or not"),
        Field(description="Whether the reply must keep to the schema."),
    ] = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        for key, value in {"name": self.name, "schema": self.schema_}.items():
            if self.type == "json_schema" and value is None:
                message = "Missing required parameter: '{param}'."
                refuse("missing_required_parameter", message, f".{key}")
            if self.type != "json_schema" and value is not None:
                refuse("unknown_parameter", "Unknown parameter: '{param}'.", f".{key}")
        if self.name is not None and not _NAME.fullmatch(self.name):
            refuse(
                "invalid_value",
                "Invalid '{param}': string does not match pattern. Expected at most 64 "
                "characters, each a letter, a digit, '_' or '-'.",
                ".name",
            )
        return self

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """The schema that a reply is held to."""
        return {"type": "object"} if self.type == "json_object" else self.schema_

    def echo(self) -> dict[str, Any]:
        """The format as the response shows it."""
        if self.type != "json_schema":
            return {"type": self.type}
        more = {} if self.description is None else {"description": self.description}
        strict = bool(self.strict)
        return {
            "type": self.type, "name": self.name, "schema": self.schema_, "strict": strict, **more
        }  # fmt: skip


class TextOptions(Body):
    """How a reply is written."""

    format: TextFormat = Field(TextFormat(type="text"), description="The kind of text.")
    verbosity: Annotated[
        Any,
        Refused("models have no verbosity", ["medium"]),
        Field(description="How long a reply is."),
    ] = None


class ResponseStreamOptions(Body):
    """How a stream is sent."""

    include_obfuscation: Annotated[
        bool | None,
        Ignored("nothing is padded: the stream stays on the user's own network"),
        Field(description="Pad the events."),
    ] = None


class PromptBody(Body):
    """What a response answers: the parameters that counting its tokens has too."""

    instructions: str | None = Field(
        None,
        description="A system message in front of this request's conversation; the next response "
        "does not inherit it.",
    )
    previous_response_id: str | None = Field(
        None, min_length=1, description="Continue the conversation of this stored response."
    )
    text: TextOptions = Field(TextOptions(), description="How the reply is written.")
    truncation: Annotated[
        Any,
        Refused("nothing is cut out of a conversation that is too long", ["disabled"]),
        Field(description="What is done with a conversation that is too long."),
    ] = None
    tools: Annotated[
        Any, Refused(_NO_TOOLS, [[]]), Field(description="Tools that the model may call.")
    ] = None
    tool_choice: Annotated[
        Any, Refused(_NO_TOOLS, ["auto", "none"]), Field(description="Which tool to call.")
    ] = None
    parallel_tool_calls: Annotated[
        bool, _NO_CALLS, Field(description="Whether several tools may be called at once.")
    ] = True
    reasoning: Annotated[
        Any,
        Refused(
            _NO_REASONING,
            [
                {},
                {"effort": None},
                {"summary": None},
                {"effort": None, "summary": None},
                {"effort": "none"},
                {"effort": "none", "summary": None},
            ],
        ),
        Field(description="How a reasoning model reasons."),
    ] = None
    conversation: Annotated[
        Any,
        Refused("no conversations are kept: use 'previous_response_id'"),
        Field(description="A stored conversation."),
    ] = None

    @property
    def parameters(self) -> ChatParameters:
        """Those of them that the chat models know."""
        return ChatParameters(json_schema=self.text.format.json_schema)


class CountRequest(PromptBody):
    """The body of `POST /responses/input_tokens`."""

    model: str | None = Field(
        None, min_length=1, description="Whose tokens are counted; by default the base model's."
    )
    input: Input
    personality: Annotated[
        Any, Refused("models have no personalities"), Field(description="A preset style.")
    ] = None


class ResponseRequest(PromptBody):
    """The body of `POST /responses`. `decoding` and `labels` are ours."""

    model: str = Field(min_length=1, description="A base or fine-tuned model.")
    input: Input
    max_output_tokens: int | None = Field(
        None, ge=16, description="Tokens of the reply at most; by default 1024."
    )
    temperature: float = Field(
        1.0, ge=0, le=2, description="0 takes the most probable; more is more varied."
    )
    top_p: float = Field(
        1.0, ge=0, le=1, description="Draw only from the most probable that hold this much."
    )
    stream: bool = Field(False, description="Send events while the reply is written.")
    stream_options: ResponseStreamOptions | None = Field(None, description="How a stream is sent.")
    store: bool = Field(True, description="Keep the response, to be read and continued.")
    metadata: Metadata | None = Field(None, description="Notes that stay with the response.")
    decoding: Literal["labels", "free"] | None = Field(
        None,
        description="`labels` holds the reply to the model's closed vocabulary, `free` does not; "
        "by default labels where the model has a vocabulary.",
    )
    labels: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, min_length=1, description="Hold the reply to these texts, on any model."
    )
    include: list[Include] | None = Field(
        None,
        description="More to be shown of the reply: log-probabilities are refused, and there are "
        "no searches, pictures or reasonings to be shown.",
    )

    user: Annotated[str | None, _ABUSE, Field(description="A name for the end user.")] = None
    safety_identifier: Annotated[
        str | None, Field(max_length=64, description="A name for the end user."), _ABUSE
    ] = None
    prompt_cache_key: Annotated[
        str | None, _CACHE, Field(description="Names requests that begin alike.")
    ] = None
    prompt_cache_retention: Annotated[
        Literal["in_memory", "24h"] | None, _CACHE, Field(description="How long to cache.")
    ] = None
    prompt_cache_options: Annotated[Any, _CACHE, Field(description="How to cache.")] = None
    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None,
        Ignored("one machine serves all requests alike"),
        Field(description="How urgent the request is."),
    ] = None
    max_tool_calls: Annotated[
        int | None, _NO_CALLS, Field(ge=1, description="Tool calls at most.")
    ] = None

    background: Annotated[
        Any,
        Refused("a response is made while the client waits: use 'stream' for a long one", [False]),
        Field(description="Answer at once, and reply later."),
    ] = None
    background_options: Annotated[
        Any, Refused("nothing runs in the background"), Field(description="How to do that.")
    ] = None
    prompt: Annotated[
        Any,
        Refused("no prompt templates are kept: send 'input' and 'instructions'"),
        Field(description="A stored prompt template."),
    ] = None
    top_logprobs: Annotated[
        Any,
        Refused("responses carry no log-probabilities", [0]),
        Field(description="Likely tokens to show at each place."),
    ] = None
    moderation: Annotated[
        Any, Refused("nothing moderates"), Field(description="Checks of what is said.")
    ] = None
    context_management: Annotated[
        Any, Refused("no conversation is compacted", [[]]), Field(description="When to compact.")
    ] = None
    access_programs: Annotated[
        Any, Refused("there are no access programs"), Field(description="Special permissions.")
    ] = None
    image: Annotated[
        Any, Refused("pictures are not understood"), Field(description="How pictures are read.")
    ] = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not hides_nothing(self.include):
            refuse("unsupported_parameter", NO_LOGPROBS, "include")
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
    def parameters(self) -> ChatParameters:
        return replace(
            super().parameters,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            decoding=self.decoding,
            labels=tuple(self.labels or ()),
        )
