"""The bodies of `POST /responses` and `POST /responses/input_tokens`.

All of OpenAI's parameters are declared, so that only a misspelt one is called unrecognized.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from emojitune.dataset.example import Message
from emojitune.inference.decoding.params import SamplingParams, ToolUse
from emojitune.inference.types import InferenceRequest
from emojitune.server.generation.request import (
    ONE_TIER,
    GenerationRequest,
    ModelName,
    refuse_without,
)
from emojitune.server.generation.tools import STRICT, Name
from emojitune.server.http.json_bodies import StrictModel, refuse
from emojitune.server.http.unsupported import Ignored, Refused
from emojitune.server.responses.items import Input, Reasoning
from emojitune.server.responses.tools import FunctionTool, ToolChoice, tool_use

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


class TextFormat(StrictModel):
    """The format of the reply's text."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="Text, any JSON object, or JSON that fits a schema."
    )
    name: Name | None = Field(None, description="The name of the schema; required with one.")
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The JSON schema, for json_schema."
    )
    description: Annotated[
        str | None,
        Ignored("the schema itself says it"),
        Field(description="What the format is for."),
    ] = None
    strict: bool | None = Field(None, description=STRICT)

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        for key, value in {"name": self.name, "schema": self.schema_}.items():
            if self.type == "json_schema" and value is None:
                message = "Missing required parameter: '{param}'."
                refuse("missing_required_parameter", message, f".{key}")
            if self.type != "json_schema" and value is not None:
                refuse("unknown_parameter", "Unknown parameter: '{param}'.", f".{key}")
        return self

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """The schema that constrains the reply."""
        return {"type": "object"} if self.type == "json_object" else self.schema_

    def echo(self) -> dict[str, Any]:
        """Return the format as the response shows it."""
        if self.type != "json_schema":
            return {"type": self.type}
        more = {} if self.description is None else {"description": self.description}
        strict = bool(self.strict)
        return {
            "type": self.type, "name": self.name, "schema": self.schema_, "strict": strict, **more
        }  # fmt: skip


class TextOptions(StrictModel):
    """The format and verbosity of the reply's text."""

    format: TextFormat = Field(TextFormat(type="text"), description="The format of the text.")
    verbosity: Annotated[
        Any,
        Refused("models have no verbosity", ["medium"]),
        Field(description="How long a reply is."),
    ] = None


class ResponseStreamOptions(StrictModel):
    """Options of a stream."""

    include_obfuscation: Annotated[
        bool | None,
        Ignored("nothing is padded: the stream stays on the user's own network"),
        Field(description="Pad the events."),
    ] = None


class ResponsePrompt(StrictModel):
    """Parameters of a response that decide what the model reads; counting tokens has them, too."""

    input: Input = Field([])
    instructions: str | None = Field(
        None,
        description="A system message before this request's conversation; a response that "
        "continues this one does not inherit it.",
    )
    previous_response_id: str | None = Field(
        None, min_length=1, description="The stored response whose conversation is continued."
    )
    text: TextOptions = Field(TextOptions(), description="Options of the reply's text.")
    truncation: Annotated[
        Any,
        Refused("nothing is cut out of a conversation that is too long", ["disabled"]),
        Field(description="What is done with a conversation that is too long."),
    ] = None
    tools: Annotated[list[FunctionTool], Field(max_length=128)] = Field(
        [], description="Functions that the model may call."
    )
    tool_choice: ToolChoice = Field(
        None, description="Whether a tool is called, and which; `auto` if absent."
    )
    parallel_tool_calls: bool = Field(
        True, description="Whether one response may hold several calls."
    )
    reasoning: Annotated[
        Any,
        Refused("models do not reason apart", [{}, {"effort": "none"}]),
        Field(description="How a reasoning model reasons."),
    ] = None
    conversation: Annotated[
        Any,
        Refused("no conversations are kept: use 'previous_response_id'"),
        Field(description="A stored conversation."),
    ] = None

    @model_validator(mode="after")
    def _has_input(self) -> Self:
        no_input = all(isinstance(item, Reasoning) for item in self.input)
        if no_input and self.previous_response_id is None:
            refuse("missing_required_parameter", "Missing required parameter: '{param}'.", "input")
        return self

    @model_validator(mode="after")
    def _choice_names_tools(self) -> Self:
        _ = self.tool_use  # refuses a choice of a tool that is not there
        return self

    @property
    def tool_use(self) -> ToolUse | None:
        """The tools that the reply may or must call; None if it may call none."""
        return tool_use(self.tools, self.tool_choice, self.parallel_tool_calls)

    def inference_request(self, messages: Sequence[Message], owner: Hashable) -> InferenceRequest:
        """The request as models take it."""
        return InferenceRequest(
            messages,
            json_schema=self.text.format.json_schema,
            strict=self.text.format.strict is True,
            tools=self.tool_use,
            owner=owner,
        )


class CountRequest(ResponsePrompt):
    """The body of `POST /responses/input_tokens`."""

    model: str | None = Field(
        None,
        min_length=1,
        description="The model whose tokens are counted; by default the base model.",
    )
    personality: Annotated[
        Any, Refused("models have no personalities"), Field(description="A preset style.")
    ] = None


# `ResponsePrompt` stands last so that its fields come first.
class ResponseRequest(GenerationRequest, ResponsePrompt):
    """The body of `POST /responses`."""

    model: ModelName
    max_output_tokens: int | None = Field(
        None, ge=16, description="Maximum number of tokens of the reply; by default 1024."
    )
    stream_options: ResponseStreamOptions | None = Field(None, description="Options of a stream.")
    store: bool = Field(
        True, description="Whether the response is stored, to be retrieved and continued."
    )
    include: list[Include] | None = Field(
        None,
        description="Further output to return: the reply's log-probabilities. The other names are "
        "accepted, and have nothing to add.",
    )
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Number of the most likely tokens to return at each position; above 0 it "
        "includes the log-probabilities by itself.",
    )

    service_tier: Annotated[
        Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None,
        ONE_TIER,
        Field(description="How urgent the request is."),
    ] = None
    max_tool_calls: Annotated[
        int | None,
        Ignored("it limits the calls of hosted tools, and there are none"),
        Field(ge=1, description="Maximum number of calls of hosted tools."),
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
    def _is_consistent(self) -> Self:
        if self.stream_options is not None and not self.stream:
            refuse_without("stream_options", "'stream' is enabled")
        return self

    @property
    def _requested_logprobs(self) -> int | None:
        included = "message.output_text.logprobs" in (self.include or ())
        return (self.top_logprobs or 0) if included or self.top_logprobs else None

    def inference_request(self, messages: Sequence[Message], owner: Hashable) -> InferenceRequest:
        sampling = SamplingParams(
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_logprobs=self._requested_logprobs,
        )
        return replace(
            super().inference_request(messages, owner),
            sampling=sampling,
            decoding=self.decoding,
            labels=tuple(self.labels or ()),
        )
